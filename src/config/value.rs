//! The value of a key.

/// What stands behind a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Text(String),
    Number(i64),
    List(Vec<String>),
    /// Tables of one name, as `[[policy.senders]]`.
    Tables(Vec<Row>),
}

/// One of several tables: its keys with their values, in the order of the text.
pub type Row = Vec<(String, Value)>;
