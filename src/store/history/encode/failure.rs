//! Encodes an answer, and for a failed question the server that it is about.

use std::net::SocketAddr;

use crate::evidence::{Answer, Evidence};
use crate::store::history::encode::{Encoder, tag};

impl<'r> Encoder<'_, 'r> {
    pub(super) fn answer_and_server(&mut self, evidence: &'r Evidence) {
        match (&*evidence.answer, &evidence.server) {
            (Answer::Unavailable(failure), Some(server)) => {
                self.tagged(tag::FAILED_AT, *failure);
                self.server(server);
            }
            (answer, _) => self.answer(answer),
        }
    }

    fn server(&mut self, server: &SocketAddr) {
        match server {
            SocketAddr::V4(v4) => {
                self.byte(tag::V4);
                self.out.extend_from_slice(&v4.ip().octets());
            }
            SocketAddr::V6(v6) => {
                self.byte(tag::V6);
                self.out.extend_from_slice(&v6.ip().octets());
                self.number(v6.scope_id().into());
            }
        }
        self.number(server.port().into());
    }
}
