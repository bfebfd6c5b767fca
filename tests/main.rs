//! One integration binary. Behaviours are sentences, acted out through real sockets against the
//! real binary, with foreign writers in processes of their own.

mod support;

mod predicate;
