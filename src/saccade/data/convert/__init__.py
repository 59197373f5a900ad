"""Published data sets become this project's rows: one record at a time, and again where it was stopped."""
