//! The few things in which databases differ. All other SQL is one text for all of them.

use sqlx::error::DatabaseError;

use super::Error;

/// What differs from database to database.
#[derive(Debug)]
pub(super) struct Dialect {
    /// Begins a transaction that writes. SQLite must take the write lock at once: a transaction
    /// that asks for it later fails without waiting when somebody else wrote in between.
    pub begin: &'static str,
    /// Prepares a connection that writes.
    pub writer: &'static str,
    /// Prepares a connection that only reads.
    pub reader: &'static str,
    /// Brings everything into the main file before the last connection closes.
    pub checkpoint: &'static str,
    /// Appended to a `SELECT` of rows that this transaction takes for itself.
    pub skip_locked: &'static str,
    /// The type of a key that the database counts up and never uses again.
    auto_id: &'static str,
    /// The collation that orders text by its bytes.
    bytewise: &'static str,
}

const SQLITE: Dialect = Dialect {
    begin: "BEGIN IMMEDIATE",
    writer: "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
             PRAGMA foreign_keys = ON; PRAGMA journal_size_limit = 67108864",
    reader: "PRAGMA busy_timeout = 5000; PRAGMA query_only = ON",
    checkpoint: "PRAGMA wal_checkpoint(TRUNCATE)",
    skip_locked: "",
    auto_id: "INTEGER PRIMARY KEY AUTOINCREMENT",
    bytewise: "BINARY",
};

const POSTGRES: Dialect = Dialect {
    begin: "BEGIN",
    writer: "SET synchronous_commit = on",
    reader: "SET default_transaction_read_only = on",
    checkpoint: "SELECT 1",
    skip_locked: " FOR UPDATE SKIP LOCKED",
    auto_id: "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
    bytewise: "\"C\"",
};

impl Dialect {
    /// The dialect of a database URL.
    pub fn of(url: &str) -> &'static Dialect {
        if url.starts_with("postgres") { &POSTGRES } else { &SQLITE }
    }

    /// The text of a migration, with the types of this database.
    pub fn migration(&self, text: &str) -> String {
        text.replace("{auto_id}", self.auto_id).replace("{bytewise}", self.bytewise)
    }
}

/// What an error of the database means. SQLSTATE codes have five characters; SQLite's result codes
/// are shorter numbers whose lowest byte is the primary code.
pub(super) fn explain(error: &dyn DatabaseError) -> Error {
    let code = error.code().unwrap_or_default();
    let advice = if code.len() == 5 {
        match &code[..2] {
            "53" => FULL,
            "08" | "57" | "58" | "25" | "40" | "55" => IO,
            _ => return Error::Corrupt(error.to_string()),
        }
    } else {
        match code.parse::<u32>().unwrap_or_default() & 0xff {
            13 => FULL,
            3 | 8 | 14 | 23 => ACCESS,
            5 | 6 => BUSY,
            7 | 9 | 10 | 15 | 22 => IO,
            _ => return Error::Corrupt(error.to_string()),
        }
    };
    Error::Unavailable(format!("{advice} ({error})"))
}

const FULL: &str = "the disk of the database is full: free some space, then try again";
const ACCESS: &str = "the database file cannot be opened or written: check that it and its directory \
                      belong to the server's user and that the file system is not read-only";
const BUSY: &str = "the database is locked by another program: stop whatever else has it open";
const IO: &str = "the database cannot be read or written: check the disk and the system's log";
