//! `--door`: the doors by the names that logs and metrics have.

use clap::ValueEnum;
use clap::builder::PossibleValue;

use crate::policy::door::DoorName;

impl ValueEnum for DoorName {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self {
            Self::Smtp => "rmxd in front of a mail server",
            Self::Milter => "A mail server with rmxd as its milter",
            Self::Policy => "A Postfix with rmxd as its policy service",
        };
        Some(PossibleValue::new(self.name()).help(help))
    }
}
