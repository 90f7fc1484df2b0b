//! `frostbert serve`: an HTTP server for the heads of runs and the vectors of their models.

mod access;
mod body;
mod counts;
mod docs;
mod http_error;
mod listen;
mod service;
mod timed_stream;
