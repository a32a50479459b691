"""Results as JSON, JUnit XML and HTML."""
