"""Did every saga get its outcome, and nothing happen twice? Told from raw topics and the services' own records."""
