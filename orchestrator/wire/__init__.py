"""How messages, journal and store look as bytes: headers, Avro records, reply tokens. `fastavro` is used only here."""
