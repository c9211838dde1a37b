"""One YAML file a pipeline; `schema.json` describes them to an editor."""
