//! `frostbert serve`: an HTTP server for the heads of runs and the vectors of their models.

mod access;
mod body;
mod docs;
mod http_error;
mod listen;
mod timed_stream;
