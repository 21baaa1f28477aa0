//! `rmxd zone`
