//! A coordinator that leads. Its broker is out of reach: what is tested here needs none.

mod devices;
mod door;
mod terms;
