//! todo
use crate::cli::load::summary::Summary;
pub(super) fn page(_s: &Summary) -> String {
    String::new()
}
