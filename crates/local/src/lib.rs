//! The private parts that `warren up` and the tests start on this machine.
