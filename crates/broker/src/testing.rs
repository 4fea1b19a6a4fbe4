//! A delivery as it comes from the wire, for those who try out what may come.

use lapin::{message::Delivery as Raw, protocol::basic, types::AMQPValue};
use warren_clock::Clock;
use warren_fault::Cause;
use warren_messages::envelope::Message;

use crate::{
    Delivery, Letter,
    delivery::{decode, parcel},
    headers,
};

/// What the consumers of a queue make of a delivery.
#[derive(Debug)]
pub struct Taken<M> {
    /// The message, or why it becomes a dead letter.
    pub message: Result<M, Cause>,
    /// What its handler would know about it.
    pub delivery: Delivery,
    /// What the index would say if it lay in the dead letters.
    pub letter: Letter,
    /// Bytes of the header names and texts that would travel on with it to `exchange`.
    pub header_bytes: usize,
}

/// Takes a message whose AMQP properties are `properties`, as in a content header frame; `None` when they are none: a
/// connection ends over them, and no message is read.
pub fn taken<M: Message>(queue: &'static str, exchange: &str, properties: &[u8], body: &[u8]) -> Option<Taken<M>> {
    let (_, properties) = basic::parse_properties(properties).ok()?;
    let mut raw = Raw::mock(1, exchange.into(), queue.into(), false, body.to_vec());
    raw.properties = properties;
    let clock = Clock::system();
    let travelling = headers::table(&headers::kept(parcel(&raw).headers, exchange));
    let of_text = |value: &AMQPValue| headers::text(value).len();
    Some(Taken {
        message: decode(&raw),
        delivery: Delivery::read(&raw, queue, &clock),
        letter: Letter::read(&raw),
        header_bytes: travelling.inner().iter().map(|(name, value)| name.as_str().len() + of_text(value)).sum(),
    })
}

#[cfg(test)]
mod tests {
    use warren_messages::wire::Command;

    use super::*;

    #[test]
    fn a_delivery_is_read_from_its_bytes() {
        // Flags for headers and type, then both: a table of one whole number, and a short string.
        let mut properties = vec![0x20, 0x20, 0, 0, 0, 19];
        properties.extend(b"\x0dx-warren-fromI\0\0\0\x02");
        properties.extend(b"\x11warren.v1.Command");
        let taken = taken::<Command>("warren.job", "warren.event", &properties, b"{}").expect("properties");
        assert_eq!(taken.delivery.headers["x-warren-from"], "2");
        assert_eq!(taken.letter.kind, "warren.v1.Command");
        assert!(taken.message.expect_err("an empty command").message.contains("required"));
        assert!(super::taken::<Command>("warren.job", "warren.event", b"\xff", b"{}").is_none());
    }
}
