//! Metrics of a fleet: what Redis is asked, and whether it answers.

use std::fmt::Error;

use crate::metrics::exposition::{Families, Snapshot, count_of};

impl Snapshot {
    pub(super) fn cluster(&self, families: &mut Families<'_>) -> Result<(), Error> {
        let (counters, Some(up)) = (&self.metrics.0.cluster, self.gauges.cluster_up) else { return Ok(()) };
        let help = "Whether the Redis of the fleet answers";
        families.gauge("rmxd_cluster_up", help)?.encode_gauge(&u64::from(up))?;
        let mut family =
            families.counters("rmxd_cluster_requests", "Questions to Redis, by how they ended")?;
        for (op, outcome, count) in
            counters.requests().filter(|(_, outcome, count)| *count > 0 || *outcome == "ok")
        {
            count_of(&mut family, &[("op", op), ("outcome", outcome)], count)?;
        }
        families.seconds("rmxd_cluster", "For the answer of Redis to a question", &counters.seconds)?;
        let help = "What Redis should have had and hasn't: it was away, took no writes, or too much was new";
        families.by_label("rmxd_cluster_dropped", help, "op", &counters.dropped)
    }
}
