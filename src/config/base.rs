//! What a configuration was made of, so that another policy can be tried over it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::config::keys::{self, Keys};
use crate::config::layer::Layer;
use crate::config::problem::Problem;
use crate::config::reader::Reader;
use crate::config::{
    DRAIN, drop_overridden_rungs, merge, origins, problem_of_all, resolve, sorted, system_name,
};
use crate::gate;
use crate::reverse_mx;

/// The name of the text in problems.
const NAME: &str = "config";
/// The only keys that a text may have: others name files and sockets.
const TABLE: &str = "policy.";
/// The key that names files to be read.
const FILES: &str = "exempt.files";

/// The layers of a configuration, the lowest first.
#[derive(Clone, PartialEq, Eq)]
pub struct Base(Arc<Vec<Layer>>);

impl fmt::Debug for Base {
    /// Without values: the token of the API is among them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Base")
    }
}

impl Base {
    pub(super) fn new(layers: Vec<Layer>) -> Self {
        Self(Arc::new(layers))
    }

    /// The settings with keys of `[policy]` from a TOML text over all layers; the exemptions are those of `running`. No file is
    /// read.
    ///
    /// # Errors
    /// All problems of the text; its name is `config`.
    pub fn with_policy(
        &self,
        text: &str,
        running: &gate::Settings,
    ) -> Result<(gate::Settings, reverse_mx::Settings), Vec<Problem>> {
        let defaults = keys::defaults().map_err(|errors| {
            let problem = |error: crate::config::document::SyntaxError| {
                problem_of_all(crate::config::Origin::Default, error.message)
            };
            errors.into_iter().map(problem).collect::<Vec<_>>()
        })?;
        let keys = Keys::new(&defaults);
        let mut problems = Vec::new();
        let layer = Layer::file(text, Path::new(NAME), &keys, &mut problems);
        for (key, origin) in layer.origins().filter(|(key, _)| !key.starts_with(TABLE)) {
            let what = "is not allowed here: only keys below policy".to_owned();
            problems.push(Problem { origin: origin.clone(), key: key.to_owned(), what });
        }
        if !problems.is_empty() {
            return Err(sorted(problems));
        }
        let mut layers: Vec<Layer> = self.0.iter().cloned().chain([layer]).collect();
        if let Some((built_in, others)) = layers.split_first_mut() {
            others.iter_mut().for_each(|layer| layer.remove(FILES));
            drop_overridden_rungs(built_in, others);
        }
        let origins = origins(&layers);
        let raw = merge(&layers)
            .map_err(|error| vec![problem_of_all(crate::config::Origin::Default, error.to_string())])?;
        let reader = Reader::new(&origins);
        let settings = resolve::resolve(&raw, DRAIN, Path::new(""), system_name, reader).map_err(sorted)?;
        let gate = gate::Settings { exempt: running.exempt.clone(), ..settings.gate };
        Ok((gate, settings.reverse_mx))
    }
}
