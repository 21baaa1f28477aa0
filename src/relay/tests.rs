//! The next hops against scripted relays and real folders.
