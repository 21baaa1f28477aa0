//! Counters of questions to the Redis of a fleet.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use crate::metrics::Metrics;
use crate::metrics::histogram::Histogram;
use crate::metrics::labels::{Label, LabelCounts, add, read, zeros};

/// What a question to Redis is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterOp {
    /// Whether a triple waits or has passed.
    Greylist,
    /// Which nodes there are.
    Nodes,
    /// How many connections the clients of the nodes have.
    Connections,
    /// The permits of all nodes.
    Permits,
    /// Whether Redis answers, on a new connection.
    Ping,
}

/// How a question to Redis ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterOutcome {
    Ok,
    /// No answer within `cluster.timeout`, or Redis was found to be away meanwhile.
    Timeout,
    /// The connection broke, or was refused.
    Lost,
    /// The server takes no questions for now.
    Busy,
    /// A replica, which takes no writes.
    ReadOnly,
    /// Memory is full, or it can't save.
    Full,
    /// Wrong password, a missing right, or not the kind of server that `cluster.redis` says.
    Denied,
    /// Another error of the server.
    Error,
    /// A value that rmxd didn't write.
    Nonsense,
}

impl Label for ClusterOp {
    const ALL: &'static [Self] = &[Self::Greylist, Self::Nodes, Self::Connections, Self::Permits, Self::Ping];

    fn place(self) -> usize {
        self as usize
    }

    fn name(self) -> &'static str {
        match self {
            Self::Greylist => "greylist",
            Self::Nodes => "nodes",
            Self::Connections => "connections",
            Self::Permits => "permits",
            Self::Ping => "ping",
        }
    }
}

impl Label for ClusterOutcome {
    const ALL: &'static [Self] = &[
        Self::Ok,
        Self::Timeout,
        Self::Lost,
        Self::Busy,
        Self::ReadOnly,
        Self::Full,
        Self::Denied,
        Self::Error,
        Self::Nonsense,
    ];

    fn place(self) -> usize {
        self as usize
    }

    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Timeout => "timeout",
            Self::Lost => "lost",
            Self::Busy => "busy",
            Self::ReadOnly => "read_only",
            Self::Full => "full",
            Self::Denied => "denied",
            Self::Error => "error",
            Self::Nonsense => "nonsense",
        }
    }
}

#[derive(Debug)]
pub(super) struct ClusterCounters {
    requests: Box<[AtomicU64]>,
    pub(super) seconds: Histogram,
    pub(super) dropped: LabelCounts<ClusterOp>,
}

impl Default for ClusterCounters {
    fn default() -> Self {
        let requests = zeros(ClusterOp::ALL.len() * ClusterOutcome::ALL.len());
        Self { requests, seconds: Histogram::default(), dropped: LabelCounts::default() }
    }
}

impl ClusterCounters {
    /// Each op with each outcome, by their names.
    pub(super) fn requests(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        let outcomes = |op: &ClusterOp| {
            let op = op.name();
            ClusterOutcome::ALL.iter().map(move |outcome| (op, outcome.name()))
        };
        let labels = ClusterOp::ALL.iter().flat_map(outcomes);
        labels.zip(&self.requests).map(|((op, outcome), count)| (op, outcome, read(count)))
    }
}

impl Metrics {
    /// Counts a question to Redis that was sent.
    pub fn cluster_request(&self, op: ClusterOp, outcome: ClusterOutcome, took: Duration) {
        let counters = &self.0.cluster;
        add(&counters.requests, op.place() * ClusterOutcome::ALL.len() + outcome.place());
        counters.seconds.observe(took);
    }

    /// Counts an answer with a value that rmxd didn't write, beside the question.
    pub fn cluster_nonsense(&self, op: ClusterOp) {
        add(
            &self.0.cluster.requests,
            op.place() * ClusterOutcome::ALL.len() + ClusterOutcome::Nonsense.place(),
        );
    }

    /// Counts what Redis should have had and hasn't: it is away, takes no writes, or too much is new.
    pub fn cluster_dropped(&self, op: ClusterOp) {
        self.0.cluster.dropped.add(op);
    }

    /// All that was dropped so far.
    #[must_use]
    pub fn cluster_dropped_total(&self) -> u64 {
        self.0.cluster.dropped.each().map(|(_, count)| count).sum()
    }
}
