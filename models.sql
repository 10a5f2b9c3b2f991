-- The schema of the relay, and the laws of its ledger.
--
-- Laws stand here, where nobody forgets them: what a balance may be, that entries are never changed, that a hold
-- lives and ends with its call. The program decides; this file refuses what must never be.
--
-- Money is an integer number of nano-yuan, and so is every column named balance, held, amount, cost, price, left,
-- quota, hold_ or charged_; only those of the grant pocket count LLM tokens. Times are integer milliseconds since 1970,
-- UTC, and end in _at. A day is text, YYYY-MM-DD, in the time zone of the site.
--
-- It is written for an empty file. An older file gets here by the numbered functions in db/migrations.py.


-- Members -----------------------------------------------------------------------------------------------------------

CREATE TABLE users (
    id             INTEGER PRIMARY KEY,
    name           TEXT    NOT NULL CHECK (length(name) BETWEEN 1 AND 64),
    name_key       TEXT    NOT NULL UNIQUE,          -- the name, folded: alice and Alice are one
    password       TEXT    NOT NULL,                 -- scrypt, as werkzeug writes it
    role           TEXT    NOT NULL DEFAULT 'member' CHECK (role IN ('member', 'admin')),
    session_epoch  TEXT    NOT NULL,                 -- a new one ends all sessions
    language       TEXT    CHECK (length(language) <= 16),
    invite_code    TEXT    NOT NULL UNIQUE,
    invited_by     INTEGER REFERENCES users,
    created_at     INTEGER NOT NULL,
    disabled_at    INTEGER,
    invite_uses    INTEGER CHECK (invite_uses >= 0),  -- how many may still come by it; NULL: any number
    invite_until   INTEGER,                          -- until when; NULL: as long as it is not renewed
    is_team        INTEGER NOT NULL DEFAULT 0 CHECK (is_team IN (0, 1))  -- nobody signs in; members share its wallet
) STRICT;

-- Who somebody is elsewhere: at an identity provider, or for a trusted proxy (its issuer is `header:` and the header's
-- name). What they say of a person beside the subject is only shown. One that was disconnected is of nobody until somebody
-- connects it again, and makes no new member: whatever newcomers get is given once for each identity.
CREATE TABLE identities (
    issuer      TEXT    NOT NULL CHECK (length(issuer) BETWEEN 1 AND 1000),
    subject     TEXT    NOT NULL CHECK (length(subject) BETWEEN 1 AND 255),
    user_id     INTEGER REFERENCES users,
    name        TEXT    NOT NULL,
    email       TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    seen_at     INTEGER NOT NULL,                    -- when it last came in
    PRIMARY KEY (issuer, subject)
) STRICT, WITHOUT ROWID;

CREATE INDEX identities_by_user ON identities (user_id) WHERE user_id IS NOT NULL;

-- Whom a member brought, and the LLM tokens promised for it. They are paid once, with the first call of the invited one
-- that is charged for; until then the invited one's balances carry invite_pending, so that no other call looks here.
CREATE TABLE invites (
    user_id      INTEGER PRIMARY KEY REFERENCES users,      -- who was invited, once in a life
    inviter_id   INTEGER NOT NULL REFERENCES users,
    reward       INTEGER NOT NULL CHECK (reward >= 0),
    created_at   INTEGER NOT NULL,
    rewarded_at  INTEGER,
    CHECK (user_id <> inviter_id)
) STRICT;

CREATE INDEX invites_by_inviter ON invites (inviter_id);

-- What a member puts into a tool. Only a digest is kept. The last use is in `daily`, so that a call writes nothing here.
CREATE TABLE tokens (
    id             INTEGER PRIMARY KEY,
    user_id        INTEGER NOT NULL REFERENCES users,
    name           TEXT    NOT NULL CHECK (length(name) BETWEEN 1 AND 64),
    digest         BLOB    NOT NULL UNIQUE,
    hint           TEXT    NOT NULL,                 -- its first and last letters, to tell it from others
    models         TEXT    CHECK (models IS NULL OR json_valid(models)),                       -- NULL: every model
    rpm            INTEGER CHECK (rpm >= 1),                                 -- requests per minute
    tpm            INTEGER CHECK (tpm >= 1),                                 -- LLM tokens per minute
    calls_at_once  INTEGER CHECK (calls_at_once >= 1),
    cap_day        INTEGER CHECK (cap_day >= 0),
    cap_month      INTEGER CHECK (cap_month >= 0),
    addresses      TEXT    CHECK (addresses IS NULL OR json_valid(addresses)),                    -- client addresses it is good for
    created_at     INTEGER NOT NULL,
    expires_at     INTEGER,
    revoked_at     INTEGER,
    old_digest     BLOB,                             -- of the secret before this one, good until old_until
    old_until      INTEGER,
    scope          TEXT CHECK (scope = 'admin')      -- NULL: for calls; admin: for the administrators' API alone
) STRICT;

CREATE INDEX tokens_by_user ON tokens (user_id);
CREATE INDEX tokens_by_old_digest ON tokens (old_digest) WHERE old_digest IS NOT NULL;

CREATE TRIGGER a_team_makes_no_calls BEFORE INSERT ON tokens
WHEN EXISTS (SELECT 1 FROM users WHERE id = NEW.user_id AND is_team) BEGIN
    SELECT RAISE(ABORT, 'a team makes no calls, its members do');
END;

-- How often whose token was turned away before there was a call: for its rate, its address, or because it works no more.
-- One row a day and reason, however often somebody tries.
CREATE TABLE turned_away (
    user_id   INTEGER NOT NULL REFERENCES users,
    day       TEXT    NOT NULL,
    token_id  INTEGER NOT NULL REFERENCES tokens,
    reason    TEXT    NOT NULL,
    count     INTEGER NOT NULL CHECK (count > 0),
    last_at   INTEGER NOT NULL,
    PRIMARY KEY (user_id, day, token_id, reason)
) STRICT, WITHOUT ROWID;

-- What administrators let a member spend and ask for, with all tokens together.
CREATE TABLE caps (
    user_id    INTEGER PRIMARY KEY REFERENCES users,
    cap_day    INTEGER CHECK (cap_day >= 0),
    cap_month  INTEGER CHECK (cap_month >= 0),
    models     TEXT CHECK (models IS NULL OR json_valid(models))             -- NULL: every model
) STRICT;


-- Money -------------------------------------------------------------------------------------------------------------

-- The three pockets of each member, and what unfinished calls have set aside of them. `available` is balance - held.
-- A team has a row too, of which the wallet alone is used: its members' calls draw on it.
-- Only the wallet may fall below zero, and only it may have more set aside than it holds.
CREATE TABLE balances (
    user_id         INTEGER PRIMARY KEY REFERENCES users,
    grant_balance   INTEGER NOT NULL DEFAULT 0 CHECK (grant_balance >= 0),
    grant_held      INTEGER NOT NULL DEFAULT 0 CHECK (grant_held BETWEEN 0 AND grant_balance),
    quota_balance   INTEGER NOT NULL DEFAULT 0 CHECK (quota_balance >= 0),
    quota_held      INTEGER NOT NULL DEFAULT 0 CHECK (quota_held BETWEEN 0 AND quota_balance),
    wallet_balance  INTEGER NOT NULL DEFAULT 0,
    wallet_held     INTEGER NOT NULL DEFAULT 0 CHECK (wallet_held >= 0),
    invite_pending  INTEGER NOT NULL DEFAULT 0 CHECK (invite_pending IN (0, 1)),
    team_id         INTEGER REFERENCES users         -- whose wallet pays after the member's own grant and quota
) STRICT;

CREATE INDEX balances_by_team ON balances (team_id) WHERE team_id IS NOT NULL;

CREATE TRIGGER a_member_shares_the_wallet_of_a_team BEFORE UPDATE OF team_id ON balances
WHEN NEW.team_id IS NOT NULL AND NOT (EXISTS (SELECT 1 FROM users WHERE id = NEW.team_id AND is_team)
                                  AND EXISTS (SELECT 1 FROM users WHERE id = NEW.user_id AND NOT is_team)) BEGIN
    SELECT RAISE(ABORT, 'members share the wallet of a team, and of nobody else');
END;

CREATE TRIGGER every_member_has_balances AFTER INSERT ON users BEGIN
    INSERT INTO balances (user_id) VALUES (NEW.id);
END;

-- Every real movement of money, never changed and never removed: a mistake is mended by another entry.
CREATE TABLE entries (
    id               INTEGER PRIMARY KEY,
    user_id          INTEGER NOT NULL REFERENCES balances,
    pocket           TEXT    NOT NULL CHECK (pocket = 'grant' OR pocket = 'quota' OR pocket = 'wallet'),
    kind             TEXT    NOT NULL CHECK (kind = 'reward' OR kind = 'top_up' OR kind = 'redeem' OR kind = 'purchase'
                                             OR kind = 'quota' OR kind = 'charge' OR kind = 'refund' OR kind = 'adjust'
                                             OR kind = 'expire'),
    amount           INTEGER NOT NULL CHECK (amount <> 0),
    balance_after    INTEGER NOT NULL,                -- of this pocket
    request_id       TEXT,                            -- no reference: calls are forgotten, their charges are not
    subscription_id  INTEGER REFERENCES subscriptions,
    note             TEXT    CHECK (length(note) <= 500),
    by_user_id       INTEGER REFERENCES users,        -- the administrator, if one did it
    created_at       INTEGER NOT NULL,
    -- Whose call it was that a team's wallet paid, which no call takes below zero.
    member_id        INTEGER REFERENCES users CHECK (member_id IS NULL OR (kind = 'charge' AND pocket = 'wallet'
                                                     AND member_id <> user_id AND balance_after >= 0)),
    CHECK ((pocket = 'quota') = (subscription_id IS NOT NULL)),
    CHECK (kind <> 'charge' OR (amount < 0 AND request_id IS NOT NULL))
) STRICT;

CREATE INDEX entries_by_user ON entries (user_id, id);

CREATE TRIGGER entries_are_never_changed BEFORE UPDATE ON entries BEGIN
    SELECT RAISE(ABORT, 'an entry is never changed');
END;

CREATE TRIGGER entries_are_never_removed BEFORE DELETE ON entries BEGIN
    SELECT RAISE(ABORT, 'an entry is never removed');
END;

-- INSERT OR REPLACE would remove without a word where recursive_triggers is off.
CREATE TRIGGER entries_are_never_replaced BEFORE INSERT ON entries
WHEN EXISTS (SELECT 1 FROM entries WHERE id = NEW.id) BEGIN
    SELECT RAISE(ABORT, 'an entry is never replaced');
END;

-- A balance is the sum of its entries, because an entry is what changes it.
CREATE TRIGGER an_entry_moves_the_grant AFTER INSERT ON entries WHEN NEW.pocket = 'grant' BEGIN
    UPDATE balances SET grant_balance = grant_balance + NEW.amount WHERE user_id = NEW.user_id;
    SELECT RAISE(ABORT, 'balance_after is not the balance') FROM balances
     WHERE user_id = NEW.user_id AND grant_balance <> NEW.balance_after;
END;

CREATE TRIGGER an_entry_moves_the_quota AFTER INSERT ON entries WHEN NEW.pocket = 'quota' BEGIN
    UPDATE subscriptions SET left = left + NEW.amount WHERE id = NEW.subscription_id AND user_id = NEW.user_id;
    UPDATE balances SET quota_balance = quota_balance + NEW.amount WHERE user_id = NEW.user_id;
    SELECT RAISE(ABORT, 'balance_after is not the balance') FROM balances
     WHERE user_id = NEW.user_id AND quota_balance <> NEW.balance_after;
END;

CREATE TRIGGER an_entry_moves_the_wallet AFTER INSERT ON entries WHEN NEW.pocket = 'wallet' BEGIN
    UPDATE balances SET wallet_balance = wallet_balance + NEW.amount WHERE user_id = NEW.user_id;
    SELECT RAISE(ABORT, 'balance_after is not the balance') FROM balances
     WHERE user_id = NEW.user_id AND wallet_balance <> NEW.balance_after;
END;

-- A period of a plan: its quota, and what is left of it. The plan's other rights last from starts_at to ends_at. One
-- that renews by itself is followed by another row, and by one only.
CREATE TABLE subscriptions (
    id            INTEGER PRIMARY KEY,
    user_id       INTEGER NOT NULL REFERENCES users,
    plan          TEXT    NOT NULL CHECK (length(plan) BETWEEN 1 AND 64),
    quota         INTEGER NOT NULL CHECK (quota >= 0),
    left          INTEGER NOT NULL DEFAULT 0 CHECK (left >= 0),
    paid          INTEGER NOT NULL DEFAULT 0 CHECK (paid >= 0),
    starts_at     INTEGER NOT NULL,
    ends_at       INTEGER NOT NULL CHECK (ends_at > starts_at),
    renew         INTEGER NOT NULL DEFAULT 0 CHECK (renew IN (0, 1)),
    renewed_from  INTEGER UNIQUE REFERENCES subscriptions,
    months_of     TEXT                               -- the time zone whose calendar months it follows; NULL: by days
) STRICT;

CREATE INDEX subscriptions_by_user ON subscriptions (user_id, ends_at);
CREATE INDEX subscriptions_to_end ON subscriptions (ends_at) WHERE left > 0 OR renew = 1;

-- Codes that turn into money or a plan. Only a digest is kept; who comes first has it.
CREATE TABLE codes (
    id           INTEGER PRIMARY KEY,
    digest       BLOB    NOT NULL UNIQUE,
    hint         TEXT    NOT NULL,
    kind         TEXT    NOT NULL CHECK (kind IN ('wallet', 'grant', 'plan')),
    amount       INTEGER CHECK (amount > 0),         -- into the wallet or the grant
    plan         TEXT,
    quota        INTEGER CHECK (quota >= 0),
    days         INTEGER CHECK (days > 0),
    note         TEXT,
    created_at   INTEGER NOT NULL,
    created_by   INTEGER REFERENCES users,
    expires_at   INTEGER,
    revoked_at   INTEGER,
    redeemed_at  INTEGER,
    redeemed_by  INTEGER REFERENCES users,
    CHECK ((redeemed_at IS NULL) = (redeemed_by IS NULL)),
    CHECK (CASE kind WHEN 'plan' THEN plan IS NOT NULL AND quota IS NOT NULL AND days IS NOT NULL AND amount IS NULL
                     ELSE amount IS NOT NULL AND plan IS NULL END)
) STRICT;

CREATE INDEX codes_by_member ON codes (redeemed_by) WHERE redeemed_by IS NOT NULL;

-- Members ask for money, one request at a time; the first administrator who decides has decided. Money that was given is
-- an entry like any other.
CREATE TABLE credit_requests (
    id          INTEGER PRIMARY KEY,
    user_id     INTEGER NOT NULL REFERENCES users,
    amount      INTEGER NOT NULL CHECK (amount > 0),
    note        TEXT    NOT NULL CHECK (length(note) <= 500),
    created_at  INTEGER NOT NULL,
    decided_at  INTEGER,
    decided_by  INTEGER REFERENCES users,            -- NULL: the command line
    given       INTEGER CHECK (given >= 0),          -- 0: declined
    reason      TEXT    CHECK (length(reason) <= 500),
    CHECK ((decided_at IS NULL) = (given IS NULL))
) STRICT;

CREATE INDEX credit_requests_by_user ON credit_requests (user_id, id);
CREATE UNIQUE INDEX credit_requests_open ON credit_requests (user_id) WHERE decided_at IS NULL;

-- What came of an operation that its caller named with a key, so that it is done once however often it is sent.
CREATE TABLE operations (
    user_id     INTEGER NOT NULL REFERENCES users,   -- whose money it moves
    key         TEXT    NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
    request     TEXT    NOT NULL,                    -- the operation and its arguments, JSON
    result      TEXT    NOT NULL,                    -- JSON
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (user_id, key)
) STRICT, WITHOUT ROWID;


-- Calls -------------------------------------------------------------------------------------------------------------

-- One row for each call that passed authentication and the rate limit. Its id is ordered by time. Neither prompts nor
-- answers are kept.
CREATE TABLE requests (
    id              TEXT    PRIMARY KEY,
    user_id         INTEGER NOT NULL REFERENCES users,
    token_id        INTEGER NOT NULL REFERENCES tokens,
    wire            TEXT    NOT NULL,
    model           TEXT,
    upstream        TEXT,
    stream          INTEGER NOT NULL CHECK (stream IN (0, 1)),
    day             TEXT    NOT NULL,
    started_at      INTEGER NOT NULL,
    closed_at       INTEGER,
    -- Alternatives, for SQLite makes a table of each IN list at each insert.
    outcome         TEXT    CHECK (outcome = 'complete' OR outcome = 'refused' OR outcome = 'failed'
                                   OR outcome = 'client_left' OR outcome = 'upstream_cut' OR outcome = 'interrupted'),
    status          INTEGER,
    error           TEXT,
    input_tokens    INTEGER CHECK (input_tokens >= 0),
    cached_tokens   INTEGER CHECK (cached_tokens BETWEEN 0 AND input_tokens),
    output_tokens   INTEGER CHECK (output_tokens >= 0),
    usage_source    TEXT    CHECK (usage_source = 'upstream' OR usage_source = 'estimated' OR usage_source = 'none'),
    usage_note      TEXT,
    price_input     INTEGER CHECK (price_input >= 0),        -- per LLM token, as it was when the call began
    price_cached    INTEGER CHECK (price_cached >= 0),
    price_output    INTEGER CHECK (price_output >= 0),
    cost            INTEGER NOT NULL DEFAULT 0 CHECK (cost >= 0),        -- of the whole usage at that price
    hold_grant      INTEGER NOT NULL DEFAULT 0 CHECK (hold_grant >= 0),
    hold_quota      INTEGER NOT NULL DEFAULT 0 CHECK (hold_quota >= 0),
    hold_wallet     INTEGER NOT NULL DEFAULT 0 CHECK (hold_wallet >= 0),
    charged_grant   INTEGER NOT NULL DEFAULT 0 CHECK (charged_grant >= 0),
    charged_quota   INTEGER NOT NULL DEFAULT 0 CHECK (charged_quota >= 0),
    charged_wallet  INTEGER NOT NULL DEFAULT 0 CHECK (charged_wallet >= 0),
    first_byte_ms   INTEGER,
    duration_ms     INTEGER,
    attempts        TEXT    NOT NULL DEFAULT '[]' CHECK (json_valid(attempts)),

    -- Since version 2, and so behind the rest: the other kinds that providers bill. Reads are a part of cached_tokens,
    -- writes of input_tokens. Without a price of its own, a read costs what is cached and a write what is input.
    cache_read_tokens      INTEGER CHECK (cache_read_tokens BETWEEN 0 AND cached_tokens),
    cache_write_tokens     INTEGER CHECK (cache_write_tokens >= 0),
    cache_write_1h_tokens  INTEGER CHECK (cache_write_1h_tokens >= 0
                                          AND cached_tokens + cache_write_tokens + cache_write_1h_tokens <= input_tokens),
    searches               INTEGER CHECK (searches >= 0),
    price_cache_read       INTEGER CHECK (price_cache_read >= 0),
    price_cache_write      INTEGER CHECK (price_cache_write >= 0),
    price_cache_write_1h   INTEGER CHECK (price_cache_write_1h >= 0),
    price_search           INTEGER CHECK (price_search >= 0),
    upstream_cost          INTEGER CHECK (upstream_cost >= 0),   -- of the same usage, at the provider's price for us
    message                TEXT,                                 -- what a refused caller read, in our own words
    team_id                INTEGER REFERENCES users,             -- the member's team, when the call began
    hold_team              INTEGER NOT NULL DEFAULT 0 CHECK (hold_team >= 0),
    charged_team           INTEGER NOT NULL DEFAULT 0 CHECK (charged_team >= 0),
    may_grant              INTEGER NOT NULL DEFAULT 0 CHECK (may_grant >= 0),    -- by how much it may be dearer than
    may_money              INTEGER NOT NULL DEFAULT 0 CHECK (may_money >= 0),    -- its hold: the own grant, quota and
    may_team               INTEGER NOT NULL DEFAULT 0 CHECK (may_team >= 0),     -- wallet, the team's wallet
    CHECK ((closed_at IS NULL) = (outcome IS NULL))
) STRICT;

-- A member's calls, newest first; token_id is in it so that those of one token are found without reading the rows. An
-- index of their own would cost each call more than it ever gave back.
CREATE INDEX requests_by_user ON requests (user_id, id, token_id);
CREATE INDEX requests_open ON requests (user_id) WHERE closed_at IS NULL;

-- A hold stands in the balances from the insert of its call to the close, no longer and no shorter.
CREATE TRIGGER a_call_that_begins_is_held AFTER INSERT ON requests
WHEN NEW.closed_at IS NULL AND NEW.hold_grant + NEW.hold_quota + NEW.hold_wallet > 0 BEGIN
    UPDATE balances
       SET grant_held = grant_held + NEW.hold_grant, quota_held = quota_held + NEW.hold_quota,
           wallet_held = wallet_held + NEW.hold_wallet
     WHERE user_id = NEW.user_id;
END;

CREATE TRIGGER a_call_that_ends_is_released AFTER UPDATE OF closed_at ON requests
WHEN OLD.closed_at IS NULL AND OLD.hold_grant + OLD.hold_quota + OLD.hold_wallet > 0 BEGIN
    UPDATE balances
       SET grant_held = grant_held - OLD.hold_grant, quota_held = quota_held - OLD.hold_quota,
           wallet_held = wallet_held - OLD.hold_wallet
     WHERE user_id = OLD.user_id;
END;

CREATE TRIGGER a_call_that_begins_is_held_by_the_team AFTER INSERT ON requests
WHEN NEW.closed_at IS NULL AND NEW.hold_team > 0 BEGIN
    UPDATE balances SET wallet_held = wallet_held + NEW.hold_team WHERE user_id = NEW.team_id;
END;

CREATE TRIGGER a_call_that_ends_is_released_by_the_team AFTER UPDATE OF closed_at ON requests
WHEN OLD.closed_at IS NULL AND OLD.hold_team > 0 BEGIN
    UPDATE balances SET wallet_held = wallet_held - OLD.hold_team WHERE user_id = OLD.team_id;
END;

CREATE TRIGGER a_call_closes_once
BEFORE UPDATE OF closed_at, hold_grant, hold_quota, hold_wallet, hold_team, team_id ON requests
WHEN OLD.closed_at IS NOT NULL OR NEW.closed_at IS NULL OR NEW.hold_grant <> OLD.hold_grant
  OR NEW.hold_quota <> OLD.hold_quota OR NEW.hold_wallet <> OLD.hold_wallet OR NEW.hold_team <> OLD.hold_team
  OR NEW.team_id IS NOT OLD.team_id BEGIN
    SELECT RAISE(ABORT, 'a call closes once, with the hold it began with');
END;

CREATE TRIGGER an_open_call_is_not_forgotten BEFORE DELETE ON requests WHEN OLD.closed_at IS NULL BEGIN
    SELECT RAISE(ABORT, 'an open call is not forgotten');
END;

-- What each member used with each token, model and day. Kept with the charge, and kept when old calls are forgotten.
CREATE TABLE daily (
    user_id         INTEGER NOT NULL REFERENCES users,
    day             TEXT    NOT NULL,
    token_id        INTEGER NOT NULL REFERENCES tokens,
    model           TEXT    NOT NULL,                -- '' for names that no model has
    calls           INTEGER NOT NULL,                -- those refused included
    refused         INTEGER NOT NULL,
    input_tokens    INTEGER NOT NULL,
    cached_tokens   INTEGER NOT NULL,
    output_tokens   INTEGER NOT NULL,
    cost            INTEGER NOT NULL,
    charged_grant   INTEGER NOT NULL,
    charged_quota   INTEGER NOT NULL,
    charged_wallet  INTEGER NOT NULL,
    last_at         INTEGER NOT NULL,
    cache_read_tokens      INTEGER NOT NULL DEFAULT 0,
    cache_write_tokens     INTEGER NOT NULL DEFAULT 0,
    cache_write_1h_tokens  INTEGER NOT NULL DEFAULT 0,
    searches               INTEGER NOT NULL DEFAULT 0,
    upstream_cost          INTEGER NOT NULL DEFAULT 0,
    charged_team           INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (user_id, day, token_id, model)
) STRICT, WITHOUT ROWID;

-- What each team's wallet paid, day by day and for whom.
CREATE TABLE daily_teams (
    team_id  INTEGER NOT NULL REFERENCES users,
    day      TEXT    NOT NULL,
    user_id  INTEGER NOT NULL REFERENCES users,
    calls    INTEGER NOT NULL,
    charged  INTEGER NOT NULL,
    PRIMARY KEY (team_id, day, user_id)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER a_call_that_ends_is_its_teams AFTER UPDATE OF closed_at ON requests
 WHEN OLD.closed_at IS NULL AND NEW.charged_team > 0 BEGIN
    INSERT INTO daily_teams VALUES (NEW.team_id, NEW.day, NEW.user_id, 1, NEW.charged_team)
    ON CONFLICT DO UPDATE SET calls = calls + 1, charged = charged + excluded.charged;
END;

-- The same by upstream: what administrators ask of a provider over months. A call that nobody answered is of none.
CREATE TABLE daily_upstreams (
    day             TEXT    NOT NULL,
    upstream        TEXT    NOT NULL,
    calls           INTEGER NOT NULL,
    input_tokens    INTEGER NOT NULL,
    output_tokens   INTEGER NOT NULL,
    cost            INTEGER NOT NULL,
    PRIMARY KEY (day, upstream)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER a_call_that_ends_is_its_upstreams AFTER UPDATE OF closed_at ON requests
 WHEN OLD.closed_at IS NULL AND NEW.upstream IS NOT NULL BEGIN
    INSERT INTO daily_upstreams VALUES (
        NEW.day, NEW.upstream, 1, coalesce(NEW.input_tokens, 0), coalesce(NEW.output_tokens, 0), NEW.cost)
    ON CONFLICT DO UPDATE SET
        calls = calls + 1, input_tokens = input_tokens + excluded.input_tokens,
        output_tokens = output_tokens + excluded.output_tokens, cost = cost + excluded.cost;
END;

-- The close of a call rolls it up, and so does the one write of a call that was refused. A model's name that no model
-- has is not kept, or anyone could fill this table.
CREATE TRIGGER a_call_that_ends_is_rolled_up AFTER UPDATE OF closed_at ON requests WHEN OLD.closed_at IS NULL BEGIN
    INSERT INTO daily VALUES (
        NEW.user_id, NEW.day, NEW.token_id, coalesce(NEW.model, ''), 1, NEW.outcome = 'refused',
        coalesce(NEW.input_tokens, 0), coalesce(NEW.cached_tokens, 0), coalesce(NEW.output_tokens, 0), NEW.cost,
        NEW.charged_grant, NEW.charged_quota, NEW.charged_wallet, NEW.started_at,
        coalesce(NEW.cache_read_tokens, 0), coalesce(NEW.cache_write_tokens, 0),
        coalesce(NEW.cache_write_1h_tokens, 0), coalesce(NEW.searches, 0), coalesce(NEW.upstream_cost, 0),
        NEW.charged_team)
    ON CONFLICT DO UPDATE SET
        calls = calls + 1, refused = refused + excluded.refused, input_tokens = input_tokens + excluded.input_tokens,
        cached_tokens = cached_tokens + excluded.cached_tokens, output_tokens = output_tokens + excluded.output_tokens,
        cost = cost + excluded.cost, charged_grant = charged_grant + excluded.charged_grant,
        charged_quota = charged_quota + excluded.charged_quota,
        charged_wallet = charged_wallet + excluded.charged_wallet, last_at = max(last_at, excluded.last_at),
        cache_read_tokens = cache_read_tokens + excluded.cache_read_tokens,
        cache_write_tokens = cache_write_tokens + excluded.cache_write_tokens,
        cache_write_1h_tokens = cache_write_1h_tokens + excluded.cache_write_1h_tokens,
        searches = searches + excluded.searches, upstream_cost = upstream_cost + excluded.upstream_cost,
        charged_team = charged_team + excluded.charged_team;
END;

CREATE TRIGGER a_refused_call_is_rolled_up AFTER INSERT ON requests WHEN NEW.closed_at IS NOT NULL BEGIN
    INSERT INTO daily VALUES (
        NEW.user_id, NEW.day, NEW.token_id, iif(NEW.error = 'model_not_found', '', coalesce(NEW.model, '')), 1,
        NEW.outcome = 'refused', 0, 0, 0, 0, 0, 0, 0, NEW.started_at, 0, 0, 0, 0, 0, 0)
    ON CONFLICT DO UPDATE SET
        calls = calls + 1, refused = refused + excluded.refused, last_at = max(last_at, excluded.last_at);
END;

CREATE INDEX daily_by_token ON daily (token_id, day);

-- The team's days, whole: what its charts sum up stands here in the order in which they want it.
CREATE INDEX daily_by_day ON daily (day, model, calls, refused, input_tokens, cached_tokens, output_tokens, cost,
                                    charged_grant, charged_quota, charged_wallet, charged_team);


-- The house ---------------------------------------------------------------------------------------------------------

-- What administrators did, and what was done to accounts. Never changed, never removed.
CREATE TABLE audit (
    id       INTEGER PRIMARY KEY,
    at       INTEGER NOT NULL,
    user_id  INTEGER REFERENCES users,               -- who did it; NULL: the command line
    action   TEXT    NOT NULL,
    target   TEXT,                                   -- whom or what it was done to
    detail   TEXT CHECK (detail IS NULL OR json_valid(detail))
) STRICT;

-- Whoever moves money by hand is in the trail.
CREATE TRIGGER an_entry_by_hand_is_audited AFTER INSERT ON entries
WHEN NEW.kind IN ('top_up', 'refund', 'adjust') OR NEW.by_user_id IS NOT NULL BEGIN
    INSERT INTO audit (at, user_id, action, target, detail)
    SELECT NEW.created_at, NEW.by_user_id, 'ledger.' || NEW.kind, name,
           json_object('entry', NEW.id, 'pocket', NEW.pocket, 'amount', NEW.amount, 'note', NEW.note)
      FROM users WHERE id = NEW.user_id;
END;

CREATE TRIGGER the_audit_is_never_changed BEFORE UPDATE ON audit BEGIN
    SELECT RAISE(ABORT, 'the audit trail is never changed');
END;

CREATE TRIGGER the_audit_is_never_removed BEFORE DELETE ON audit BEGIN
    SELECT RAISE(ABORT, 'the audit trail is never removed');
END;

-- Single facts of the installation, by name.
CREATE TABLE meta (
    key    TEXT PRIMARY KEY,
    value  TEXT NOT NULL
) STRICT, WITHOUT ROWID;
