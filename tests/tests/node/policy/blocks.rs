//! Blocks of addresses, of whoever has them.

use anyhow::Result;

use super::stage::{Stage, allows, denies};
use super::world::{World, world};

/// `x/db` and `x/web` are 10.1.1.11 and 10.1.1.12, `x/far` is 10.1.2.11; of IPv6 likewise.
const CAST: [(usize, &str); 4] = [(1, "x/db"), (1, "x/web"), (2, "x/far"), (2, "y/far")];

/// Has `x/db` hear only blocks.
fn from(blocks: &str) -> World {
    world()
        .policy("x/db", &format!("podSelector: {{matchLabels: {{role: db}}}}, ingress: [{{from: [{blocks}]}}]"))
        .pods("x/db", "role: db")
}

/// Has `x/db` reach only blocks.
fn to(blocks: &str) -> World {
    let spec =
        format!("podSelector: {{matchLabels: {{role: db}}}}, policyTypes: [Egress], egress: [{{to: [{blocks}]}}]");
    world().policy("x/db", &spec).pods("x/db", "role: db")
}

fn blocks(routing: &'static str) -> Result<()> {
    let stage = Stage::set(routing, &CAST)?;
    // Beside 192.0.2.100 and 2001:db8::64.
    for address in ["203.0.113.9", "203.0.113.77", "2001:db8:f::9", "2001:db8:f::1:9"] {
        stage.lab.also_at(address.parse()?)?;
    }
    let all = "80/TCP 53/UDP ICMP";
    let strangers = "203.0.113.9 203.0.113.77 2001:db8:f::9 2001:db8:f::1:9";

    let world = "{ipBlock: {cidr: 203.0.113.0/24, except: [203.0.113.64/26]}}, \
                 {ipBlock: {cidr: '2001:db8:f::/48', except: ['2001:db8:f::1:0/112']}}";
    let inside = "203.0.113.9 2001:db8:f::9";
    let excepted = "203.0.113.77 2001:db8:f::1:9";
    stage.play(&from(world))?;
    stage.expect([
        allows(inside, "x/db", all),
        denies(excepted, "x/db", all).because("no ingress rule of NetworkPolicy x/db"),
        denies("stranger x/web x/far y/far n2", "x/db", all),
        allows("x/db", "x/web x/far stranger", all),
    ])?;
    stage.play(&to(world))?;
    stage.expect([
        allows("x/db", inside, all),
        denies("x/db", excepted, all).because("no egress rule of NetworkPolicy x/db"),
        denies("x/db", "stranger x/web x/far y/far n2", all),
        // Its own node is always reached.
        allows("x/db", "n1", all),
        allows(strangers, "x/db", "80/TCP"),
    ])?;

    // An except of one block is none of another: what either allows is allowed.
    stage.play(&from(
        "{ipBlock: {cidr: 203.0.113.0/24, except: [203.0.113.64/26]}}, {ipBlock: {cidr: 203.0.113.77/32}}, \
         {ipBlock: {cidr: '2001:db8:f::/48', except: ['2001:db8:f::1:0/112', '2001:db8:f::9/128']}}, {ipBlock: {cidr: '2001:db8:f::1:9/128'}}",
    ))?;
    stage.expect([
        allows("203.0.113.9 203.0.113.77 2001:db8:f::1:9", "x/db", "80/TCP"),
        denies("2001:db8:f::9 stranger", "x/db", "80/TCP"),
    ])?;

    // Those of pods and nodes are addresses, too; and all of one family are none of the other.
    stage.play(&from(
        "{ipBlock: {cidr: 10.1.0.0/16, except: [10.1.1.12/32]}}, {ipBlock: {cidr: 'fd00:1::/32', except: ['fd00:1:1::12/128']}}",
    ))?;
    stage.expect([allows("x/far y/far", "x/db", all), denies("x/web stranger n2", "x/db", all)])?;
    stage.play(&to("{ipBlock: {cidr: 10.1.2.11/32}}, {ipBlock: {cidr: 'fd00:1:2::11/128'}}"))?;
    stage.expect([allows("x/db", "x/far", all), denies("x/db", "y/far x/web stranger", all)])?;
    stage.play(&from("{ipBlock: {cidr: 192.0.2.2/32}}, {ipBlock: {cidr: '2001:db8::2/128'}}"))?;
    stage.expect([allows("n1 n2", "x/db", all), denies("stranger x/far", "x/db", all)])?;
    stage.play(&from("{ipBlock: {cidr: 0.0.0.0/0}}"))?;
    stage.expect([
        allows("203.0.113.9 203.0.113.77", "x/db", all),
        denies("2001:db8:f::9 2001:db8:f::1:9", "x/db", all),
    ])?;
    stage.play(&from("{ipBlock: {cidr: '::/0', except: ['2001:db8:f::/48']}}"))?;
    stage.expect([denies(strangers, "x/db", all)])
}

#[test]
fn blocks_mean_the_addresses_in_them_natively() -> Result<()> {
    blocks("native")
}

#[test]
fn blocks_mean_the_addresses_in_them_through_the_overlay() -> Result<()> {
    blocks("vxlan")
}
