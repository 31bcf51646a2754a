-- The ledger: one row for each charge and each charge taken back, appended and never edited but for
-- `live`, which says whether the row is the call's charge now. Sums over cost_nano_usd * sign are right
-- whatever was replaced.
CREATE TABLE ledger (
    seq INTEGER PRIMARY KEY,
    id BLOB NOT NULL CHECK (length(id) = 16),
    live INTEGER NOT NULL,
    sign INTEGER NOT NULL CHECK (sign IN (1, -1)),
    observer INTEGER NOT NULL,
    quality INTEGER NOT NULL,
    started_at_unix_ns INTEGER NOT NULL,
    -- NULL: the price is not known, and unpriced_reason says why.
    cost_nano_usd INTEGER,
    unpriced_reason TEXT NOT NULL,
    rate_card TEXT NOT NULL,
    tenant TEXT NOT NULL,
    team TEXT NOT NULL,
    application TEXT NOT NULL,
    user TEXT NOT NULL,
    request_model TEXT NOT NULL,
    response_model TEXT NOT NULL,
    virtual_key_id TEXT NOT NULL,
    -- The protobuf Call, so that the row can be taken back in the warehouse exactly as it went there.
    call BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX ledger_live ON ledger (id) WHERE live = 1;

CREATE TABLE budgets (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    -- JSON object: which of team, application, user, model, key, and its name.
    scope TEXT NOT NULL,
    period TEXT NOT NULL,
    limit_nano_usd INTEGER NOT NULL CHECK (limit_nano_usd >= 0),
    -- JSON array of {"percent", "action"}.
    thresholds TEXT NOT NULL,
    created_at_unix_ns INTEGER NOT NULL,
    UNIQUE (tenant, name)
) STRICT;

-- Spend by budget and period, kept in the transaction that writes the ledger.
CREATE TABLE budget_spend (
    budget_id TEXT NOT NULL REFERENCES budgets (id) ON DELETE CASCADE,
    period_start_unix_ns INTEGER NOT NULL,
    spent_nano_usd INTEGER NOT NULL,
    calls INTEGER NOT NULL,
    unpriced_calls INTEGER NOT NULL,
    PRIMARY KEY (budget_id, period_start_unix_ns)
) STRICT, WITHOUT ROWID;

-- Thresholds that were reached, each once in a period.
CREATE TABLE budget_crossings (
    budget_id TEXT NOT NULL REFERENCES budgets (id) ON DELETE CASCADE,
    period_start_unix_ns INTEGER NOT NULL,
    percent INTEGER NOT NULL,
    action TEXT NOT NULL,
    spent_nano_usd INTEGER NOT NULL,
    at_unix_ns INTEGER NOT NULL,
    PRIMARY KEY (budget_id, period_start_unix_ns, percent)
) STRICT, WITHOUT ROWID;

CREATE TABLE alerts (
    seq INTEGER PRIMARY KEY,
    dedup_key TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    tenant TEXT NOT NULL,
    summary TEXT NOT NULL,
    at_unix_ns INTEGER NOT NULL
) STRICT;

-- Calls without a price, by what has none.
CREATE TABLE unpriced (
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    reason TEXT NOT NULL,
    calls INTEGER NOT NULL,
    last_at_unix_ns INTEGER NOT NULL,
    PRIMARY KEY (provider, model, reason)
) STRICT, WITHOUT ROWID;

-- Rows on their way to the warehouse. A row without a batch is not sealed yet; what a batch holds never
-- changes once it has a number, so that inserting it again is inserting the same.
CREATE TABLE outbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    batch INTEGER,
    rows INTEGER NOT NULL,
    queued_at_unix_ns INTEGER NOT NULL,
    payload BLOB NOT NULL
) STRICT;
CREATE INDEX outbox_batch ON outbox (batch) WHERE batch IS NOT NULL;

-- What the router decided about requests: the ones it refused are in no other table.
CREATE TABLE routing_decisions (
    id TEXT PRIMARY KEY,
    decided_at_unix_ns INTEGER NOT NULL,
    outcome INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    team TEXT NOT NULL,
    application TEXT NOT NULL,
    budget_id TEXT NOT NULL,
    reason TEXT NOT NULL,
    requested_model TEXT NOT NULL,
    decision BLOB NOT NULL
) STRICT;
CREATE INDEX routing_decisions_at ON routing_decisions (decided_at_unix_ns);

-- What ingest did, by outcome: accepted, duplicates, replaced, rejected:<reason>,
-- adjusted:<what>, undecodable; and the sums over the ledger, ledger.<what>.
CREATE TABLE counters (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Facts about this store: its id (part of every warehouse token) and the last batch number.
CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
