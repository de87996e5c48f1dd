"""Many runs at once: what is trained, in which cohorts and where, and what their seeds say."""
