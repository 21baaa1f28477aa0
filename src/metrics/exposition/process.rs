//! The metrics of the process, as the clients of Prometheus name them.

use std::fmt::Error;

use crate::metrics::exposition::{Families, Snapshot};
use crate::metrics::process::Process;

impl Snapshot {
    pub(super) fn process(&self, families: &mut Families<'_>) -> Result<(), Error> {
        let Some(Process { cpu, started, threads, resident, size, descriptors, most_descriptors }) =
            self.gauges.process
        else {
            return Ok(());
        };
        families.seconds_spent("process_cpu", "Processor time of user and system", cpu)?;
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
