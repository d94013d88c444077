//! The statements: what is asked, in SQL. Each runs inside a transaction that the writer began.

use std::sync::Arc;
use std::time::SystemTime;

use rusqlite::{Connection, Row, named_params};

use super::columns::{Date, Json, Milliseconds, Word};
use crate::model::WorkspaceId;
use crate::store::{
    JOURNAL_LINES_MAX, JournalEntry, Moment, Record, RecordState, StoreError, TokenRecord,
    WAKES_LOOKED_THROUGH_MAX, Wake,
};
use crate::token::{TokenHash, TokenName};

/// Lines of the journal altogether: ten thousand workspaces, and as many that are gone.
const JOURNAL_TOTAL_MAX: u32 = 2_000_000;

/// Lines that are deleted in one go, so that nobody waits for long meanwhile.
const TRIM_MAX: usize = 10_000;

/// Every record that can be read.
pub(super) fn load(connection: &Connection) -> Result<Vec<Record>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT * FROM workspace ORDER BY id")?;
    let mut rows = statement.query([])?;
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        match record(row) {
            Ok(record) => records.push(record),
            Err(error) => {
                let id: String = row.get("id").unwrap_or_default();
                let problem: &dyn std::error::Error = &error;
                tracing::error!(
                    workspace = id,
                    error = problem,
                    "the stored record of workspace {id} can't be read; it is left out"
                );
            }
        }
    }
    Ok(records)
}

/// Inserts or replaces a record.
pub(super) fn put(connection: &Connection, record: &Record) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(
        "INSERT OR REPLACE INTO workspace (id, origin, driver, project, spec, policy, created_at,
             phase, tier, since, last_active, reported_activity, intent, stopped_by_admin_at,
             kept_until, memory_saved, failure)
         VALUES (:id, :origin, :driver, :project, :spec, :policy, :created_at,
             :phase, :tier, :since, :last_active, :reported_activity, :intent,
             :stopped_by_admin_at, :kept_until, :memory_saved, :failure)",
    )?;
    let state = &record.state;
    statement.execute(named_params! {
        ":id": record.id.as_str(),
        ":origin": Word(record.origin),
        ":driver": record.driver,
        ":project": record.project,
        ":spec": record.spec.as_deref().map(Json),
        ":policy": Json(&record.policy),
        ":created_at": Date(record.created_at),
        ":phase": Word(state.phase),
        ":tier": state.tier.map(Word),
        ":since": Date(state.since),
        ":last_active": state.last_active.map(Date),
        ":reported_activity": state.reported_activity,
        ":intent": state.intent.map(Word),
        ":stopped_by_admin_at": state.stopped_by_admin_at.map(Date),
        ":kept_until": state.kept_until.map(Date),
        ":memory_saved": state.memory_saved.map(whole),
        ":failure": state.failure,
    })?;
    Ok(())
}

/// Replaces the state of a record and adds a line to its journal, if there is one.
pub(super) fn transition(
    connection: &Connection,
    id: &WorkspaceId,
    state: &RecordState,
    entry: Option<&JournalEntry>,
) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(
        "UPDATE workspace SET phase = :phase, tier = :tier, since = :since,
             last_active = :last_active, reported_activity = :reported_activity,
             intent = :intent,
             stopped_by_admin_at = :stopped_by_admin_at, kept_until = :kept_until,
             memory_saved = :memory_saved, failure = :failure
         WHERE id = :id",
    )?;
    let changed = statement.execute(named_params! {
        ":id": id.as_str(),
        ":phase": Word(state.phase),
        ":tier": state.tier.map(Word),
        ":since": Date(state.since),
        ":last_active": state.last_active.map(Date),
        ":reported_activity": state.reported_activity,
        ":intent": state.intent.map(Word),
        ":stopped_by_admin_at": state.stopped_by_admin_at.map(Date),
        ":kept_until": state.kept_until.map(Date),
        ":memory_saved": state.memory_saved.map(whole),
        ":failure": state.failure,
    })?;
    if changed == 0 {
        return Err(StoreError::Unknown { id: id.clone() });
    }
    entry.map_or(Ok(()), |entry| write_journal(connection, id, entry))
}

fn write_journal(
    connection: &Connection,
    id: &WorkspaceId,
    entry: &JournalEntry,
) -> Result<(), StoreError> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO journal (workspace, at, phase, tier, reason, took)
         VALUES (:workspace, :at, :phase, :tier, :reason, :took)",
    )?;
    insert.execute(named_params! {
        ":workspace": id.as_str(),
        ":at": Date(entry.at),
        ":phase": Word(entry.phase),
        ":tier": entry.tier.map(Word),
        ":reason": entry.reason,
        ":took": entry.took.map(Milliseconds),
    })?;
    let mut trim = connection.prepare_cached(
        "DELETE FROM journal WHERE workspace = ?1 AND line <=
             (SELECT line FROM journal WHERE workspace = ?1 ORDER BY line DESC LIMIT 1 OFFSET ?2)",
    )?;
    trim.execute((id.as_str(), limit(JOURNAL_LINES_MAX)))?;
    Ok(())
}

/// Deletes a record, and leaves its journal.
pub(super) fn delete(connection: &Connection, id: &WorkspaceId) -> Result<(), StoreError> {
    connection.prepare_cached("DELETE FROM workspace WHERE id = ?1")?.execute([id.as_str()])?;
    Ok(())
}

/// The last lines of a journal, the newest first.
pub(super) fn journal(
    connection: &Connection,
    id: &WorkspaceId,
    lines_max: usize,
) -> Result<Vec<JournalEntry>, StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT * FROM journal WHERE workspace = ?1 ORDER BY line DESC LIMIT ?2")?;
    let lines = statement.query_map((id.as_str(), limit(lines_max)), |row| {
        Ok(JournalEntry {
            at: row.get::<_, Date>("at")?.0,
            phase: row.get::<_, Word<_>>("phase")?.0,
            tier: row.get::<_, Option<Word<_>>>("tier")?.map(|tier| tier.0),
            reason: row.get("reason")?,
            took: row.get::<_, Option<Milliseconds>>("took")?.map(|took| took.0),
        })
    })?;
    Ok(lines.collect::<Result<_, _>>()?)
}

/// Deletes what is too old or too much, at most [`TRIM_MAX`] lines of each. `true`: there is more.
pub(super) fn trim(connection: &Connection, keep_since: SystemTime) -> Result<bool, StoreError> {
    // Lines are in order of time, so the search ends at the first that is kept.
    let expired = connection.execute(
        "DELETE FROM journal WHERE line IN (
             SELECT line FROM journal WHERE line < coalesce(
                 (SELECT line FROM journal WHERE at >= ?1 ORDER BY line LIMIT 1),
                 9223372036854775807)
             ORDER BY line LIMIT ?2)",
        (Date(keep_since), limit(TRIM_MAX)),
    )?;
    let excess = connection.execute(
        "DELETE FROM journal WHERE line IN (
             SELECT line FROM journal ORDER BY line LIMIT
                 min(?2, max(0, (SELECT count(*) FROM journal) - ?1)))",
        (JOURNAL_TOTAL_MAX, limit(TRIM_MAX)),
    )?;
    Ok(expired == TRIM_MAX || excess == TRIM_MAX)
}

/// Adds a moment, and deletes what is older than `keep_since`.
pub(super) fn note_moment(
    connection: &Connection,
    moment: &Moment,
    keep_since: SystemTime,
) -> Result<(), StoreError> {
    let mut insert = connection.prepare_cached(
        "INSERT OR REPLACE INTO history (at, running, frozen, memory_saved)
         VALUES (?1, ?2, ?3, ?4)",
    )?;
    let Moment { at, running, frozen, memory_saved } = *moment;
    insert.execute((Date(at), running, frozen, whole(memory_saved)))?;
    let mut trim = connection.prepare_cached("DELETE FROM history WHERE at < ?1")?;
    trim.execute([Date(keep_since)])?;
    Ok(())
}

/// The history from then on, the oldest first.
pub(super) fn history(
    connection: &Connection,
    since: SystemTime,
) -> Result<Vec<Moment>, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT * FROM history WHERE at >= ?1 ORDER BY at")?;
    let moments = statement.query_map([Date(since)], |row| {
        Ok(Moment {
            at: row.get::<_, Date>("at")?.0,
            running: row.get("running")?,
            frozen: row.get("frozen")?,
            memory_saved: unsigned(row.get("memory_saved")?),
        })
    })?;
    Ok(moments.collect::<Result<_, _>>()?)
}

/// How the wakes from then on went, the newest first.
pub(super) fn wakes(connection: &Connection, since: SystemTime) -> Result<Vec<Wake>, StoreError> {
    // Lines are in order of time, so the search ends at the first that is older.
    let mut statement = connection
        .prepare_cached("SELECT at, phase, took FROM journal ORDER BY line DESC LIMIT ?1")?;
    let mut rows = statement.query([limit(WAKES_LOOKED_THROUGH_MAX)])?;
    let mut wakes = Vec::new();
    while let Some(row) = rows.next()? {
        if row.get::<_, Date>("at")?.0 < since {
            break;
        }
        let took = row.get::<_, Option<Milliseconds>>("took")?.map(|took| took.0);
        wakes.extend(Wake::of(row.get::<_, Word<_>>("phase")?.0, took));
    }
    Ok(wakes)
}

/// Inserts or replaces a token.
pub(super) fn put_token(connection: &Connection, token: &TokenRecord) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO token (name, hash, scope, created_at) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute((
            token.name.as_str(),
            token.hash.bytes(),
            Json(&token.scope),
            Date(token.created_at),
        ))?;
    Ok(())
}

/// Every token, by name.
pub(super) fn tokens(connection: &Connection) -> Result<Vec<TokenRecord>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT * FROM token ORDER BY name")?;
    let tokens = statement.query_map([], |row| {
        Ok(TokenRecord {
            name: row.get::<_, Word<_>>("name")?.0,
            hash: TokenHash::from_bytes(row.get("hash")?),
            scope: row.get::<_, Json<_>>("scope")?.0,
            created_at: row.get::<_, Date>("created_at")?.0,
        })
    })?;
    Ok(tokens.collect::<Result<_, _>>()?)
}

/// Deletes a token; `false`: there was none.
pub(super) fn delete_token(connection: &Connection, name: &TokenName) -> Result<bool, StoreError> {
    let deleted =
        connection.prepare_cached("DELETE FROM token WHERE name = ?1")?.execute([name.as_str()])?;
    Ok(deleted > 0)
}

fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    Ok(Record {
        id: row.get::<_, Word<_>>("id")?.0,
        origin: row.get::<_, Word<_>>("origin")?.0,
        driver: row.get("driver")?,
        project: row.get("project")?,
        spec: row.get::<_, Option<Json<_>>>("spec")?.map(|spec| Arc::new(spec.0)),
        policy: row.get::<_, Json<_>>("policy")?.0,
        created_at: row.get::<_, Date>("created_at")?.0,
        state: RecordState {
            phase: row.get::<_, Word<_>>("phase")?.0,
            tier: row.get::<_, Option<Word<_>>>("tier")?.map(|tier| tier.0),
            since: row.get::<_, Date>("since")?.0,
            last_active: row.get::<_, Option<Date>>("last_active")?.map(|date| date.0),
            reported_activity: row.get("reported_activity")?,
            intent: row.get::<_, Option<Word<_>>>("intent")?.map(|intent| intent.0),
            stopped_by_admin_at: (row.get::<_, Option<Date>>("stopped_by_admin_at")?)
                .map(|date| date.0),
            kept_until: row.get::<_, Option<Date>>("kept_until")?.map(|date| date.0),
            memory_saved: row.get::<_, Option<i64>>("memory_saved")?.map(unsigned),
            failure: row.get("failure")?,
        },
    })
}

/// SQLite counts with 64 bits and a sign.
fn limit(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn whole(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn unsigned(bytes: i64) -> u64 {
    u64::try_from(bytes).unwrap_or_default()
}
