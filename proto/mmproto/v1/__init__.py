"""The event contract: protobuf messages, version 1. Fields are only ever added."""
