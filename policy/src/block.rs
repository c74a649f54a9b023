//! CIDRs.

use ipnet::IpNet;

use crate::path::{FieldError, Path};

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
    pub(crate) fn whole(text: &str, path: &Path<'_>) -> Result<Self, FieldError> {
        Ok(Self { cidr: cidr(text, path)?, excepts: Box::default() })
    }

    /// A block as NetworkPolicies have it.
    ///
    /// # Errors
    /// See [`cidr`]; and where an except is not strictly inside the CIDR.
    pub(crate) fn of(text: &str, excepts: &[String], path: &Path<'_>) -> Result<Self, FieldError> {
        let cidr_path = path.field("cidr");
        let outer = cidr(text, &cidr_path)?;
        let list = path.field("except");
        let mut inner = Vec::with_capacity(excepts.len());
        for (index, except) in excepts.iter().enumerate() {
            let here = list.index(index);
            let net = cidr(except, &here)?;
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

/// # Errors
/// Where a text is no CIDR, has host bits, or is of IPv4-mapped IPv6 addresses, which no packet carries.
fn cidr(text: &str, path: &Path<'_>) -> Result<IpNet, FieldError> {
    let net: IpNet =
        text.parse().map_err(|_| path.wrong(format!("{text:?} is no CIDR, such as 10.0.0.0/8 or fd00::/8")))?;
    if let IpNet::V6(v6) = net
        && v6.addr().to_ipv4_mapped().is_some()
    {
        return Err(path.wrong(format!("{text:?} is of IPv4-mapped IPv6 addresses; write it as IPv4")));
    }
    if net != net.trunc() {
        return Err(path.wrong(format!("{text:?} has bits set beyond its prefix; did you mean {}?", net.trunc())));
    }
    Ok(net)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(cidr: &str, excepts: &[&str]) -> Result<Block, String> {
        let excepts: Vec<String> = excepts.iter().map(|text| (*text).to_owned()).collect();
        Block::of(cidr, &excepts, &Path::root("ipBlock")).map_err(|error| format!("{}: {}", error.field, error.what))
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
}
