//! CIDRs.

use ipnet::IpNet;

use crate::path::{FieldError, Path};
use crate::reading::{Reading, Strictness};

/// Addresses below a CIDR, but for those below any of the excepts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Block {
    /// The CIDR, without host bits.
    pub cidr: IpNet,
    /// CIDRs strictly inside it, sorted.
    pub excepts: Box<[IpNet]>,
}

impl Block {
    /// All addresses below a CIDR.
    ///
    /// # Errors
    /// See [`cidr`].
    pub(crate) fn whole(text: &str, path: &Path<'_>, reading: &mut Reading) -> Result<Self, FieldError> {
        Ok(Self { cidr: cidr(text, path, reading)?, excepts: Box::default() })
    }

    /// A block as NetworkPolicies have it.
    ///
    /// # Errors
    /// See [`cidr`]; and where an except is not strictly inside the CIDR.
    pub(crate) fn of(
        text: &str,
        excepts: &[String],
        path: &Path<'_>,
        reading: &mut Reading,
    ) -> Result<Self, FieldError> {
        let cidr_path = path.field("cidr");
        let outer = cidr(text, &cidr_path, reading)?;
        let list = path.field("except");
        let mut inner = Vec::with_capacity(excepts.len());
        for (index, except) in excepts.iter().enumerate() {
            let here = list.index(index);
            let net = cidr(except, &here, reading)?;
            if net.addr().is_ipv4() != outer.addr().is_ipv4() {
                return Err(here.wrong(format!("{net} is of another address family than {outer}")));
            }
            if net == outer || !outer.contains(&net) {
                return Err(here.wrong(format!("{net} is not strictly inside {outer}")));
            }
            inner.push(net);
        }
        inner.sort_unstable();
        inner.dedup();
        Ok(Self { cidr: outer, excepts: inner.into() })
    }
}

/// A CIDR, as it is meant. The API server takes, and masks, what has host bits; and IPv4 written as IPv6, which no packet
/// carries.
///
/// # Errors
/// Where a text is no CIDR; and in strict reading, where it is not written as it is meant.
fn cidr(text: &str, path: &Path<'_>, reading: &mut Reading) -> Result<IpNet, FieldError> {
    let net: IpNet =
        text.parse().map_err(|_| path.wrong(format!("{text:?} is no CIDR, such as 10.0.0.0/8 or fd00::/8")))?;
    let masked = net.trunc();
    let meant = unmapped(masked);
    if meant == net {
        return Ok(meant);
    }
    let what = if meant == masked { "has bits set beyond its prefix" } else { "is of IPv4-mapped IPv6 addresses" };
    match reading.strictness {
        Strictness::Strict => Err(path.wrong(format!("{text:?} {what}; did you mean {meant}?"))),
        Strictness::AsServed => {
            reading.warn(path, format!("{text:?} {what}; it is taken as {meant}"));
            Ok(meant)
        }
    }
}

/// IPv4 as such, where it is written as IPv6.
fn unmapped(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net };
    let address = v6.addr().to_ipv4_mapped();
    let length = v6.prefix_len().checked_sub(96);
    address.zip(length).and_then(|(address, length)| IpNet::new(address.into(), length).ok()).unwrap_or(net)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Severity;

    fn block(cidr: &str, excepts: &[&str]) -> Result<Block, String> {
        let excepts: Vec<String> = excepts.iter().map(|text| (*text).to_owned()).collect();
        let mut reading = Reading::new(Strictness::Strict);
        let block = Block::of(cidr, &excepts, &Path::root("ipBlock"), &mut reading);
        block.map_err(|error| format!("{}: {}", error.field, error.what))
    }

    #[test]
    fn blocks_make_sense_or_are_refused() {
        assert!(block("10.0.0.0/8", &["10.1.0.0/16", "10.1.1.0/24"]).is_ok());
        assert!(block("0.0.0.0/0", &[]).is_ok() && block("::/0", &["fd00::/8"]).is_ok());
        for (cidr, excepts, field) in [
            ("10.0.0.1/8", &[][..], "ipBlock.cidr: "),
            ("10.0.0.0", &[], "ipBlock.cidr: "),
            ("10.0.0.0/33", &[], "ipBlock.cidr: "),
            ("::ffff:10.0.0.0/104", &[], "ipBlock.cidr: "),
            ("10.0.0.0/8", &["10.1.0.0/16", "11.0.0.0/16"], "ipBlock.except[1]: "),
            ("10.0.0.0/8", &["10.0.0.0/8"], "ipBlock.except[0]: "),
            ("10.0.0.0/8", &["0.0.0.0/0"], "ipBlock.except[0]: "),
            ("10.0.0.0/8", &["fd00::/16"], "ipBlock.except[0]: "),
            ("10.0.0.0/8", &["10.0.0.1/16"], "ipBlock.except[0]: "),
        ] {
            let error = block(cidr, excepts).expect_err("nonsense");
            assert!(error.starts_with(field), "{error}");
        }
    }
    #[test]
    fn a_block_that_is_in_force_is_what_the_api_server_takes_it_for() {
        for (written, cidr, except) in [
            (["10.0.0.1/4", "10.1.2.3/16"], "0.0.0.0/4", "10.1.0.0/16"),
            (["fd00::1/8", "fd00::1:2/112"], "fd00::/8", "fd00::1:0/112"),
            (["::ffff:10.0.0.1/104", "10.1.0.0/16"], "10.0.0.0/8", "10.1.0.0/16"),
        ] {
            let mut reading = Reading::new(Strictness::AsServed);
            let excepts = [written[1].to_owned()];
            let read = Block::of(written[0], &excepts, &Path::root("ipBlock"), &mut reading);
            let read = read.unwrap_or_else(|error| panic!("{}: {}", error.field, error.what));
            assert_eq!((read.cidr.to_string(), read.excepts[0].to_string()), (cidr.into(), except.into()));
            let note = &reading.notes[0];
            assert_eq!((note.severity, &*note.field), (Severity::Warning, "ipBlock.cidr"));
            assert!(note.what.ends_with(&format!("; it is taken as {cidr}")), "{}", note.what);
        }
        let mut reading = Reading::new(Strictness::AsServed);
        for (cidr, except) in
            [("10.0.0.0/33", "10.0.0.0/8"), ("1.0.0.256/8", "1.1.0.0/16"), ("10.0.0.1/8", "10.0.0.2/8")]
        {
            let read = Block::of(cidr, &[except.to_owned()], &Path::root("ipBlock"), &mut reading);
            assert!(read.is_err(), "the API server refuses it: {read:?}");
        }
    }
}
