CREATE TABLE IF NOT EXISTS schema_versions (version UInt32, applied_at DateTime('UTC')) ENGINE = MergeTree ORDER BY version;

CREATE TABLE IF NOT EXISTS calls (
    tenant_id LowCardinality(String),
    started_at DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1)),
    id String CODEC(ZSTD(1)),
    sign Int8,
    team LowCardinality(String),
    application LowCardinality(String),
    user LowCardinality(String),
    provider LowCardinality(String),
    model LowCardinality(String),
    request_model LowCardinality(String),
    operation LowCardinality(String),
    virtual_key LowCardinality(String),
    node LowCardinality(String),
    process LowCardinality(String),
    observer LowCardinality(String),
    quality LowCardinality(String),
    error_type LowCardinality(String),
    session String CODEC(ZSTD(1)),
    streaming Bool,
    duration_s Nullable(Float64),
    first_token_s Nullable(Float64),
    cost_nano_usd Nullable(Int64),
    unpriced_reason LowCardinality(String),
    rate_card LowCardinality(String),
    reported UInt8,
    tokens_input Int64 CODEC(ZSTD(1)),
    tokens_input_cache_read Int64 CODEC(ZSTD(1)),
    tokens_input_cache_write_5m Int64 CODEC(ZSTD(1)),
    tokens_input_cache_write_1h Int64 CODEC(ZSTD(1)),
    tokens_input_audio Int64 CODEC(ZSTD(1)),
    tokens_input_audio_cache_read Int64 CODEC(ZSTD(1)),
    tokens_input_image Int64 CODEC(ZSTD(1)),
    tokens_input_video Int64 CODEC(ZSTD(1)),
    tokens_output Int64 CODEC(ZSTD(1)),
    tokens_output_reasoning Int64 CODEC(ZSTD(1)),
    tokens_output_audio Int64 CODEC(ZSTD(1)),
    tokens_output_image Int64 CODEC(ZSTD(1)),
    tokens_other Int64 CODEC(ZSTD(1)),
    message String CODEC(ZSTD(3)),
    version UInt32 MATERIALIZED toUInt32(cityHash64(team, application, user, provider, model, request_model, operation, virtual_key, node, process, observer, quality, error_type, session, streaming, isNull(duration_s), ifNull(duration_s, 0), isNull(first_token_s), ifNull(first_token_s, 0), isNull(cost_nano_usd), ifNull(cost_nano_usd, 0), unpriced_reason, rate_card, reported, tokens_input, tokens_input_cache_read, tokens_input_cache_write_5m, tokens_input_cache_write_1h, tokens_input_audio, tokens_input_audio_cache_read, tokens_input_image, tokens_input_video, tokens_output, tokens_output_reasoning, tokens_output_audio, tokens_output_image, tokens_other)),
    INDEX by_id id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = VersionedCollapsingMergeTree(sign, version)
PARTITION BY toYYYYMM(started_at)
ORDER BY (tenant_id, started_at, id)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, index_granularity = 1024;

CREATE TABLE IF NOT EXISTS usage_hourly (
    tenant_id LowCardinality(String),
    at DateTime('UTC') CODEC(Delta(4), ZSTD(1)),
    team LowCardinality(String),
    application LowCardinality(String),
    provider LowCardinality(String),
    model LowCardinality(String),
    quality LowCardinality(String),
    unpriced_reason LowCardinality(String),
    error_type LowCardinality(String),
    calls SimpleAggregateFunction(sum, Int64),
    unpriced_calls SimpleAggregateFunction(sum, Int64),
    errors SimpleAggregateFunction(sum, Int64),
    cost_nano_usd SimpleAggregateFunction(sum, Int64),
    duration_s SimpleAggregateFunction(sum, Float64),
    timed_calls SimpleAggregateFunction(sum, Int64),
    tokens_input SimpleAggregateFunction(sum, Int64),
    tokens_input_cache_read SimpleAggregateFunction(sum, Int64),
    tokens_input_cache_write_5m SimpleAggregateFunction(sum, Int64),
    tokens_input_cache_write_1h SimpleAggregateFunction(sum, Int64),
    tokens_input_audio SimpleAggregateFunction(sum, Int64),
    tokens_input_audio_cache_read SimpleAggregateFunction(sum, Int64),
    tokens_input_image SimpleAggregateFunction(sum, Int64),
    tokens_input_video SimpleAggregateFunction(sum, Int64),
    tokens_output SimpleAggregateFunction(sum, Int64),
    tokens_output_reasoning SimpleAggregateFunction(sum, Int64),
    tokens_output_audio SimpleAggregateFunction(sum, Int64),
    tokens_output_image SimpleAggregateFunction(sum, Int64),
    tokens_other SimpleAggregateFunction(sum, Int64)
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(at)
ORDER BY (tenant_id, at, team, application, provider, model, quality, unpriced_reason, error_type)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS usage_hourly_view TO usage_hourly AS
SELECT tenant_id, toStartOfHour(started_at) AS at, team, application, provider, model, quality, unpriced_reason, error_type,
    sum(toInt64(sign)) AS calls,
    sum(if(isNull(raw.cost_nano_usd), sign, 0)) AS unpriced_calls,
    sum(if(raw.error_type != '', sign, 0)) AS errors,
    sum(ifNull(raw.cost_nano_usd, 0) * sign) AS cost_nano_usd,
    sum(ifNull(raw.duration_s, 0) * sign) AS duration_s,
    sum(if(isNull(raw.duration_s), 0, sign)) AS timed_calls,
    sum(raw.tokens_input * sign) AS tokens_input,
    sum(raw.tokens_input_cache_read * sign) AS tokens_input_cache_read,
    sum(raw.tokens_input_cache_write_5m * sign) AS tokens_input_cache_write_5m,
    sum(raw.tokens_input_cache_write_1h * sign) AS tokens_input_cache_write_1h,
    sum(raw.tokens_input_audio * sign) AS tokens_input_audio,
    sum(raw.tokens_input_audio_cache_read * sign) AS tokens_input_audio_cache_read,
    sum(raw.tokens_input_image * sign) AS tokens_input_image,
    sum(raw.tokens_input_video * sign) AS tokens_input_video,
    sum(raw.tokens_output * sign) AS tokens_output,
    sum(raw.tokens_output_reasoning * sign) AS tokens_output_reasoning,
    sum(raw.tokens_output_audio * sign) AS tokens_output_audio,
    sum(raw.tokens_output_image * sign) AS tokens_output_image,
    sum(raw.tokens_other * sign) AS tokens_other
FROM calls AS raw GROUP BY tenant_id, at, team, application, provider, model, quality, unpriced_reason, error_type;

CREATE TABLE IF NOT EXISTS usage_daily (
    tenant_id LowCardinality(String),
    at DateTime('UTC') CODEC(Delta(4), ZSTD(1)),
    team LowCardinality(String),
    application LowCardinality(String),
    provider LowCardinality(String),
    model LowCardinality(String),
    quality LowCardinality(String),
    unpriced_reason LowCardinality(String),
    error_type LowCardinality(String),
    calls SimpleAggregateFunction(sum, Int64),
    unpriced_calls SimpleAggregateFunction(sum, Int64),
    errors SimpleAggregateFunction(sum, Int64),
    cost_nano_usd SimpleAggregateFunction(sum, Int64),
    duration_s SimpleAggregateFunction(sum, Float64),
    timed_calls SimpleAggregateFunction(sum, Int64),
    tokens_input SimpleAggregateFunction(sum, Int64),
    tokens_input_cache_read SimpleAggregateFunction(sum, Int64),
    tokens_input_cache_write_5m SimpleAggregateFunction(sum, Int64),
    tokens_input_cache_write_1h SimpleAggregateFunction(sum, Int64),
    tokens_input_audio SimpleAggregateFunction(sum, Int64),
    tokens_input_audio_cache_read SimpleAggregateFunction(sum, Int64),
    tokens_input_image SimpleAggregateFunction(sum, Int64),
    tokens_input_video SimpleAggregateFunction(sum, Int64),
    tokens_output SimpleAggregateFunction(sum, Int64),
    tokens_output_reasoning SimpleAggregateFunction(sum, Int64),
    tokens_output_audio SimpleAggregateFunction(sum, Int64),
    tokens_output_image SimpleAggregateFunction(sum, Int64),
    tokens_other SimpleAggregateFunction(sum, Int64)
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(at)
ORDER BY (tenant_id, at, team, application, provider, model, quality, unpriced_reason, error_type)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS usage_daily_view TO usage_daily AS
SELECT tenant_id, toStartOfDay(started_at) AS at, team, application, provider, model, quality, unpriced_reason, error_type,
    sum(toInt64(sign)) AS calls,
    sum(if(isNull(raw.cost_nano_usd), sign, 0)) AS unpriced_calls,
    sum(if(raw.error_type != '', sign, 0)) AS errors,
    sum(ifNull(raw.cost_nano_usd, 0) * sign) AS cost_nano_usd,
    sum(ifNull(raw.duration_s, 0) * sign) AS duration_s,
    sum(if(isNull(raw.duration_s), 0, sign)) AS timed_calls,
    sum(raw.tokens_input * sign) AS tokens_input,
    sum(raw.tokens_input_cache_read * sign) AS tokens_input_cache_read,
    sum(raw.tokens_input_cache_write_5m * sign) AS tokens_input_cache_write_5m,
    sum(raw.tokens_input_cache_write_1h * sign) AS tokens_input_cache_write_1h,
    sum(raw.tokens_input_audio * sign) AS tokens_input_audio,
    sum(raw.tokens_input_audio_cache_read * sign) AS tokens_input_audio_cache_read,
    sum(raw.tokens_input_image * sign) AS tokens_input_image,
    sum(raw.tokens_input_video * sign) AS tokens_input_video,
    sum(raw.tokens_output * sign) AS tokens_output,
    sum(raw.tokens_output_reasoning * sign) AS tokens_output_reasoning,
    sum(raw.tokens_output_audio * sign) AS tokens_output_audio,
    sum(raw.tokens_output_image * sign) AS tokens_output_image,
    sum(raw.tokens_other * sign) AS tokens_other
FROM calls AS raw GROUP BY tenant_id, at, team, application, provider, model, quality, unpriced_reason, error_type;

CREATE TABLE IF NOT EXISTS users_daily (
    tenant_id LowCardinality(String),
    at DateTime('UTC') CODEC(Delta(4), ZSTD(1)),
    team LowCardinality(String),
    application LowCardinality(String),
    user LowCardinality(String),
    provider LowCardinality(String),
    model LowCardinality(String),
    calls SimpleAggregateFunction(sum, Int64),
    unpriced_calls SimpleAggregateFunction(sum, Int64),
    errors SimpleAggregateFunction(sum, Int64),
    cost_nano_usd SimpleAggregateFunction(sum, Int64),
    duration_s SimpleAggregateFunction(sum, Float64),
    timed_calls SimpleAggregateFunction(sum, Int64),
    input_tokens SimpleAggregateFunction(sum, Int64),
    cache_read_input_tokens SimpleAggregateFunction(sum, Int64),
    cache_write_input_tokens SimpleAggregateFunction(sum, Int64),
    output_tokens SimpleAggregateFunction(sum, Int64),
    reasoning_output_tokens SimpleAggregateFunction(sum, Int64)
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(at)
ORDER BY (tenant_id, at, team, application, user, provider, model)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS users_daily_view TO users_daily AS
SELECT tenant_id, toStartOfDay(started_at) AS at, team, application, user, provider, model,
    sum(toInt64(sign)) AS calls,
    sum(if(isNull(raw.cost_nano_usd), sign, 0)) AS unpriced_calls,
    sum(if(raw.error_type != '', sign, 0)) AS errors,
    sum(ifNull(raw.cost_nano_usd, 0) * sign) AS cost_nano_usd,
    sum(ifNull(raw.duration_s, 0) * sign) AS duration_s,
    sum(if(isNull(raw.duration_s), 0, sign)) AS timed_calls,
    sum((raw.tokens_input + raw.tokens_input_cache_read + raw.tokens_input_cache_write_5m + raw.tokens_input_cache_write_1h + raw.tokens_input_audio + raw.tokens_input_audio_cache_read + raw.tokens_input_image + raw.tokens_input_video) * sign) AS input_tokens,
    sum((raw.tokens_input_cache_read + raw.tokens_input_audio_cache_read) * sign) AS cache_read_input_tokens,
    sum((raw.tokens_input_cache_write_5m + raw.tokens_input_cache_write_1h) * sign) AS cache_write_input_tokens,
    sum((raw.tokens_output + raw.tokens_output_reasoning + raw.tokens_output_audio + raw.tokens_output_image) * sign) AS output_tokens,
    sum((raw.tokens_output_reasoning) * sign) AS reasoning_output_tokens
FROM calls AS raw GROUP BY tenant_id, at, team, application, user, provider, model;

CREATE TABLE IF NOT EXISTS processes_daily (
    tenant_id LowCardinality(String),
    at DateTime('UTC') CODEC(Delta(4), ZSTD(1)),
    team LowCardinality(String),
    application LowCardinality(String),
    node LowCardinality(String),
    process LowCardinality(String),
    provider LowCardinality(String),
    model LowCardinality(String),
    calls SimpleAggregateFunction(sum, Int64),
    unpriced_calls SimpleAggregateFunction(sum, Int64),
    errors SimpleAggregateFunction(sum, Int64),
    cost_nano_usd SimpleAggregateFunction(sum, Int64),
    duration_s SimpleAggregateFunction(sum, Float64),
    timed_calls SimpleAggregateFunction(sum, Int64),
    input_tokens SimpleAggregateFunction(sum, Int64),
    cache_read_input_tokens SimpleAggregateFunction(sum, Int64),
    cache_write_input_tokens SimpleAggregateFunction(sum, Int64),
    output_tokens SimpleAggregateFunction(sum, Int64),
    reasoning_output_tokens SimpleAggregateFunction(sum, Int64)
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(at)
ORDER BY (tenant_id, at, team, application, node, process, provider, model)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS processes_daily_view TO processes_daily AS
SELECT tenant_id, toStartOfDay(started_at) AS at, team, application, node, process, provider, model,
    sum(toInt64(sign)) AS calls,
    sum(if(isNull(raw.cost_nano_usd), sign, 0)) AS unpriced_calls,
    sum(if(raw.error_type != '', sign, 0)) AS errors,
    sum(ifNull(raw.cost_nano_usd, 0) * sign) AS cost_nano_usd,
    sum(ifNull(raw.duration_s, 0) * sign) AS duration_s,
    sum(if(isNull(raw.duration_s), 0, sign)) AS timed_calls,
    sum((raw.tokens_input + raw.tokens_input_cache_read + raw.tokens_input_cache_write_5m + raw.tokens_input_cache_write_1h + raw.tokens_input_audio + raw.tokens_input_audio_cache_read + raw.tokens_input_image + raw.tokens_input_video) * sign) AS input_tokens,
    sum((raw.tokens_input_cache_read + raw.tokens_input_audio_cache_read) * sign) AS cache_read_input_tokens,
    sum((raw.tokens_input_cache_write_5m + raw.tokens_input_cache_write_1h) * sign) AS cache_write_input_tokens,
    sum((raw.tokens_output + raw.tokens_output_reasoning + raw.tokens_output_audio + raw.tokens_output_image) * sign) AS output_tokens,
    sum((raw.tokens_output_reasoning) * sign) AS reasoning_output_tokens
FROM calls AS raw GROUP BY tenant_id, at, team, application, node, process, provider, model;

CREATE TABLE IF NOT EXISTS observers (
    tenant_id LowCardinality(String),
    node LowCardinality(String),
    observer LowCardinality(String),
    calls SimpleAggregateFunction(sum, Int64),
    last_call_at SimpleAggregateFunction(max, DateTime64(9, 'UTC'))
)
ENGINE = AggregatingMergeTree
ORDER BY (tenant_id, node, observer)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS observers_view TO observers AS
SELECT tenant_id, node, observer, sum(toInt64(sign)) AS calls, max(started_at) AS last_call_at
FROM calls AS raw GROUP BY tenant_id, node, observer;

CREATE TABLE IF NOT EXISTS user_activity (
    user_id String,
    session_id Nullable(String),
    conversion_value Nullable(Decimal(38, 9)),
    feature_used LowCardinality(Nullable(String)),
    event_type LowCardinality(String),
    activity_id String,
    team LowCardinality(String),
    application_id LowCardinality(String),
    tenant_id LowCardinality(String),
    timestamp DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(timestamp)
ORDER BY (tenant_id, timestamp, activity_id)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS quality_metrics (
    score_id String,
    request_id String,
    hallucination_rate Nullable(Float64),
    toxicity_score Nullable(Float64),
    scorer LowCardinality(String),
    tenant_id LowCardinality(String),
    timestamp DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(timestamp)
ORDER BY (tenant_id, timestamp, score_id)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS feedback_scores (
    feedback_id String,
    request_id String,
    user_satisfaction_rating Nullable(Float64),
    user_id String,
    tenant_id LowCardinality(String),
    timestamp DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(timestamp)
ORDER BY (tenant_id, timestamp, feedback_id)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE VIEW IF NOT EXISTS ai_requests AS
SELECT id,
    tenant_id,
    application AS application_id,
    nullIf(session, '') AS session_id,
    nullIf(model, '') AS model_id,
    started_at AS timestamp,
    duration_s * 1000 AS latency_ms,
    first_token_s * 1000 AS first_token_ms,
    provider,
    operation,
    team,
    user,
    error_type
FROM calls FINAL WHERE sign > 0;

CREATE VIEW IF NOT EXISTS cost_metrics AS
SELECT concat(id, '/', if(rate_card = '', 'unpriced', rate_card)) AS cost_id,
    id AS request_id,
    toDecimal128(cost_nano_usd, 9) / toDecimal128(1000000000, 0) AS calculated_cost,
    'USD' AS currency,
    toDecimal128(cost_nano_usd, 9) / nullIf((tokens_input + tokens_input_cache_read + tokens_input_cache_write_5m + tokens_input_cache_write_1h + tokens_input_audio + tokens_input_audio_cache_read + tokens_input_image + tokens_input_video + tokens_output + tokens_output_reasoning + tokens_output_audio + tokens_output_image) * 1000, 0) AS provider_rate,
    nullIf(rate_card, '') AS rate_card,
    nullIf(unpriced_reason, '') AS unpriced_reason,
    tenant_id,
    started_at AS timestamp
FROM calls FINAL WHERE sign > 0;

CREATE VIEW IF NOT EXISTS token_usage AS
SELECT id AS request_id,
    if(bitAnd(reported, 1) = 0, NULL, tokens_input + tokens_input_cache_read + tokens_input_cache_write_5m + tokens_input_cache_write_1h + tokens_input_audio + tokens_input_audio_cache_read + tokens_input_image + tokens_input_video) AS prompt_tokens,
    if(bitAnd(reported, 2) = 0, NULL, tokens_output + tokens_output_reasoning + tokens_output_audio + tokens_output_image) AS completion_tokens,
    streaming AS stream_bool,
    quality,
    tenant_id,
    started_at AS timestamp
FROM calls FINAL WHERE sign > 0;
