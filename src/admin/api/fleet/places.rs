//! How far a merged list has come at each node: the value of `next`, and of `before`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::decision::Node;
use crate::store::history::Cursor;

/// What ends the list of a node.
const END: &str = "end";

/// Where the next page begins at a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::admin) enum Place {
    /// At its newest decision.
    #[default]
    Start,
    Before(Cursor),
    /// There are no more.
    End,
}

/// `1:64a1f0,2:,3:end`, in the order of the nodes. A node that isn't in it, as it came meanwhile, begins at its start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::admin) struct Places(BTreeMap<Node, Place>);

impl Places {
    pub(super) fn of(&self, node: Node) -> Place {
        self.0.get(&node).copied().unwrap_or_default()
    }

    pub(super) fn set(&mut self, node: Node, place: Place) {
        self.0.insert(node, place);
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = Node> {
        self.0.keys().copied()
    }
}

impl fmt::Display for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        for (node, place) in &self.0 {
            write!(f, "{between}{node}:")?;
            match place {
                Place::Start => {}
                Place::Before(cursor) => write!(f, "{cursor}")?,
                Place::End => f.write_str(END)?,
            }
            between = ",";
        }
        Ok(())
    }
}

impl FromStr for Places {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = |part: &str| {
            let (node, place) = part.split_once(':')?;
            let place = match place {
                "" => Place::Start,
                END => Place::End,
                cursor => Place::Before(cursor.parse().ok()?),
            };
            Some((Node::new(node.parse().ok()?)?, place))
        };
        let places: Option<BTreeMap<_, _>> = text.split(',').map(read).collect();
        places.map(Self).ok_or_else(|| {
            format!("{text:?} is no position in the histories of a fleet: take the value of \"next\" from an answer")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_places_is_read_back_and_anything_else_is_refused() {
        for text in ["1:64a1f0,2:,15:end", "0:end", "3:"] {
            let places: Places = text.parse().unwrap();
            assert_eq!(places.to_string(), text);
        }
        let places: Places = "1:64a1f0,2:".parse().unwrap();
        assert_eq!(places.of(Node::of_a_test(1)), Place::Before("64a1f0".parse().unwrap()));
        assert_eq!(
            (places.of(Node::of_a_test(2)), places.of(Node::of_a_test(3))),
            (Place::Start, Place::Start)
        );
        for text in ["", "64a1f0", "1", "16:", "x:1", "1:xyz", "1:1,", "1:1;2:2", "-1:"] {
            let error = text.parse::<Places>().unwrap_err();
            assert!(error.contains("take the value of \"next\""), "{text}: {error}");
        }
    }
}
