//! What the tables look like, and how a file of an older version gets there.
//!
//! A file says in its `user_version` how many of the migrations it has seen; the rest are carried
//! out when it is opened, each in a transaction with its number. A migration that was released is
//! never edited: files that have seen it would stay as they are.

use rusqlite::{Connection, TransactionBehavior};

/// In order; the first makes the tables in an empty file.
pub(super) const MIGRATIONS: &[&str] =
    &[include_str!("schema/1.sql"), include_str!("schema/2.sql"), include_str!("schema/3.sql")];

const VERSION: &str = "user_version";

/// How many migrations the file has seen.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<u32> {
    connection.pragma_query_value(None, VERSION, |row| row.get(0))
}

/// Carries out the migrations that the file has not seen. One that fails leaves it as it was.
pub(super) fn upgrade(connection: &mut Connection, migrations: &[&str]) -> rusqlite::Result<()> {
    let seen = version(connection)?;
    for (number, migration) in (1_u32..).zip(migrations).filter(|(number, _)| *number > seen) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(migration)?;
        transaction.pragma_update(None, VERSION, number)?;
        transaction.commit()?;
        if seen > 0 {
            tracing::info!(schema = number, "upgraded the store to schema {number}");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(connection: &Connection, query: &str) -> u32 {
        connection.query_row(query, [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn a_file_sees_each_migration_once_and_keeps_its_rows() {
        let first = "CREATE TABLE a (x INTEGER); INSERT INTO a VALUES (7);";
        let second = "ALTER TABLE a ADD COLUMN y INTEGER NOT NULL DEFAULT 3;";
        let mut connection = Connection::open_in_memory().unwrap();
        upgrade(&mut connection, &[first]).unwrap();
        for _ in 0..2 {
            upgrade(&mut connection, &[first, second]).unwrap();
            assert_eq!(version(&connection).unwrap(), 2);
            assert_eq!(count(&connection, "SELECT sum(x * 10 + y) FROM a"), 73);
        }
    }

    #[test]
    fn a_migration_that_fails_leaves_the_file_as_it_was() {
        let first = "CREATE TABLE a (x INTEGER);";
        let broken = "INSERT INTO a VALUES (1); INSERT INTO missing VALUES (1);";
        let mut connection = Connection::open_in_memory().unwrap();
        upgrade(&mut connection, &[first, broken]).unwrap_err();
        assert_eq!(version(&connection).unwrap(), 1);
        assert_eq!(count(&connection, "SELECT count(*) FROM a"), 0);
        upgrade(&mut connection, &[first, "INSERT INTO a VALUES (1);"]).unwrap();
        assert_eq!(count(&connection, "SELECT count(*) FROM a"), 1);
    }
}
