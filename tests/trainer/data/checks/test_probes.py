"""A tokenizer that loses, rewrites or miscounts text is known by short texts, and refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.tokenizers import KINDS, MISCOUNTED, learn, spell_spaces_in_bytes, tokenizer
from trainer.config.config_errors import ConfigError
from trainer.data.building.adopt import adopt
from trainer.data.byte_audit import Auditor
from trainer.data.checks.probes import PROBES, failed_probes
from trainer.data.shards import write_shard
from trainer.data.token_bytes import ByteTable
from trainer.data.tokenizer import BOS_ID

REFERENCE = Path(__file__).parents[5] / "shared" / "reference" / "data"
KEPT = tuple(name for name, (_, published) in PROBES.items() if published is None)


def failures(processor):
    table = ByteTable.from_tokenizer(processor, processor.vocab_size())
    return {each.name: each for each in failed_probes(processor, table)}


def learnt(**options):
    return type(spell_spaces_in_bytes())(model_proto=learn(**options))


def adopt_texts(folder, processor, texts=("the cat sat on the mat",) * 3):
    folder.mkdir()
    model = folder.with_suffix(".model")
    model.write_bytes(processor.serialized_model_proto())
    stream = [token for text in texts for token in (BOS_ID, *processor.encode(text))]
    for split in ("train", "val"):
        write_shard(folder / f"x_{split}_000000.bin", stream)
    return adopt(folder, model)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tokenizer_fails_if_it_miscounts_and_as_the_published_one_if_it_normalises(kind):
    found = failures(tokenizer(kind))
    if kind in MISCOUNTED:
        assert not all(each.is_published for each in found.values())
    elif kind in ("as published", "spaces removed"):
        assert found
        assert all(each.is_published for each in found.values())
        assert not set(found) & set(KEPT)
    else:
        assert not found


@pytest.mark.parametrize("rule", ["nmt_nfkc_cf", "nfkc_cf"])
def test_folded_case_is_refused_under_every_name(rule, tmp_path):
    processor = learnt(normalization_rule_name=rule)
    assert failures(processor)["upper case"].decoded == "the cat sat \u00e9"
    for name in ("mine", "fineweb10B_sp512"):
        with pytest.raises(ConfigError, match=r"does not keep text.*\n.*'The CAT Sat \u00c9'"):
            adopt_texts(tmp_path / name, processor)


def test_a_rule_of_ones_own_is_refused_under_every_name(tmp_path):
    """One that turns quotes and dashes of three bytes into those of one, which no text here has."""
    rule = tmp_path / "rule.tsv"
    rule.write_text("E000\t20\n")
    assert failures(learnt(normalization_rule_tsv=str(rule))).keys() == {"characters"}
    rule.write_text("2019\t27\n2014\t2D\n")
    processor = learnt(normalization_rule_tsv=str(rule))
    assert failures(processor).keys() == {"characters"}
    with pytest.raises(ConfigError, match="characters: '\u2014\u2019' of 6 bytes becomes \"-'\""):
        adopt_texts(tmp_path / "fineweb10B_sp512", processor)


def test_a_tokenizer_that_normalises_is_taken_for_the_text_that_it_was_measured_on(tmp_path):
    processor = tokenizer("as published")
    with pytest.raises(ConfigError, match=r"does not keep text.*\n(.*\n)*.*ligatures: "):
        adopt_texts(tmp_path / "mine", processor)
    assert adopt_texts(tmp_path / "fineweb10B_sp512", processor).status == "adopted"


def test_spaces_that_are_spelled_in_bytes_count_one_each_and_are_refused(tmp_path):
    processor = spell_spaces_in_bytes()
    found = failures(processor)["words"]
    assert (found.decoded, found.counted_bytes) == (found.text, len(found.text) + 2 * 2)
    auditor = Auditor(processor, ByteTable.from_tokenizer(processor, processor.vocab_size()))
    auditor.feed(np.array([BOS_ID, *processor.encode("ab cd")], np.uint16))
    (mismatch,) = auditor.finish().mismatches
    assert (mismatch.counted_bytes, mismatch.expected_bytes) == (7, 5)
    assert "a space in bytes, 2 too many each; 1 times" in str(mismatch)
    with pytest.raises(ConfigError, match="of 3 validation documents"):
        adopt_texts(tmp_path / "spelled", processor, ("ab cd",) * 3)
    with pytest.raises(ConfigError, match=r"does not keep text.*\n.*words: 'the cat sat'"):
        adopt_texts(tmp_path / "no-space", processor, ("abcd",) * 3)


@pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"there is no {REFERENCE}")
def test_the_published_tokenizer_is_taken_for_web_documents_under_any_name(tmp_path):
    processor = type(spell_spaces_in_bytes())(model_file=str(REFERENCE / "fineweb_1024_bpe.model"))
    lines = (REFERENCE / "fineweb_docs_sample.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    manifest = adopt_texts(tmp_path / "web", processor, texts).dataset.manifest
    assert (manifest.num_val_documents, manifest.num_val_tokens) == (120, 372_565)
    assert manifest.val_bytes == 893_966
    assert sum(len(text.encode()) for text in texts) == 893_995  # it normalises the others away
