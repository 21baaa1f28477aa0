//! The metrics of the process, as the clients of Prometheus name them.

use std::fmt::Error;

use prometheus_client::encoding::NoLabelSet;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use crate::metrics::exposition::{Families, Snapshot};
use crate::metrics::process::Process;

impl Snapshot {
    pub(super) fn process(&self, families: &mut Families<'_>) -> Result<(), Error> {
        let Some(Process { cpu, started, threads, resident, size, descriptors, most_descriptors }) =
            self.gauges.process
        else {
            return Ok(());
        };
        let (help, unit) = ("Processor time of user and system", Some(&Unit::Seconds));
        families
            .open("process_cpu", help, unit, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, f64>(&cpu.as_secs_f64(), None)?;
        families.time("process_start_time", "When the process started, since 1970", started)?;
        families.bytes("process_resident_memory", "Memory in use", resident)?;
        families.bytes("process_virtual_memory", "Size of the address space", size)?;
        families.gauge("process_threads", "Threads")?.encode_gauge(&threads)?;
        if let Some(open) = descriptors {
            families.gauge("process_open_fds", "Open file descriptors")?.encode_gauge(&open)?;
        }
        if let Some(most) = most_descriptors {
            families.gauge("process_max_fds", "File descriptors that may be open")?.encode_gauge(&most)?;
        }
        Ok(())
    }
}
