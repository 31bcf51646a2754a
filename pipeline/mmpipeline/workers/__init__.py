"""The processes that read Kafka: `mmpipeline work` charges calls, `mmpipeline sink` fills the warehouse."""
