"""The parts of a report: what each section says, and how the whole is written down."""
