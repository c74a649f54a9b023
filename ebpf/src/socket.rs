//! Sockets that are told whom to talk to, or say whom they talk to: `unsafe`, because all access to their context is here.
//!
//! A socket of IPv6 may talk IPv4 (RFC 4291 section 2.5.5.2): what it says and is told is translated as IPv4's.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::{bpf_get_netns_cookie, bpf_get_socket_cookie};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use sluice_abi::{Features, IpAddress, Ipv4, Ipv6, Port, Protocol};
use sluice_datapath::Tables;
use sluice_datapath::service::{ServiceTables, Target};
use sluice_datapath::socket::{self, Talk};

use crate::kernel::Kernel;

/// The call goes on.
const GO_ON: i32 = 1;
/// Third word of an IPv4 address as one of IPv6; the two before it are 0.
const MAPPED: u32 = 0xffff_u32.to_be();

/// The address in a socket's context.
struct Named<'a>(&'a SockAddrContext);

impl Named<'_> {
    #[inline(always)]
    fn raw(&self) -> *mut bpf_sock_addr {
        self.0.sock_addr
    }

    #[inline(always)]
    fn ipv4(&self) -> Ipv4 {
        // SAFETY: the context is the program's own. Volatile, here and below, because the verifier takes only accesses of
        // whole words.
        unsafe { Ipv4((&raw const (*self.raw()).user_ip4).read_volatile()) }
    }

    #[inline(always)]
    fn ipv6(&self) -> Ipv6 {
        // SAFETY: as above.
        unsafe {
            let words = (&raw const (*self.raw()).user_ip6).cast::<u32>();
            Ipv6([
                words.read_volatile(),
                words.add(1).read_volatile(),
                words.add(2).read_volatile(),
                words.add(3).read_volatile(),
            ])
        }
    }

    #[inline(always)]
    fn port(&self) -> Port {
        // SAFETY: as above.
        unsafe { Port((&raw const (*self.raw()).user_port).read_volatile() as u16) }
    }

    #[inline(always)]
    fn set_ipv4(&self, address: Ipv4, port: Port) {
        // SAFETY: as above.
        unsafe {
            (&raw mut (*self.raw()).user_ip4).write_volatile(address.0);
            (&raw mut (*self.raw()).user_port).write_volatile(port.0.into());
        }
    }

    #[inline(always)]
    fn set_ipv6(&self, address: Ipv6, port: Port) {
        let Ipv6([a, b, c, d]) = address;
        // SAFETY: as above.
        unsafe {
            let words = (&raw mut (*self.raw()).user_ip6).cast::<u32>();
            words.write_volatile(a);
            words.add(1).write_volatile(b);
            words.add(2).write_volatile(c);
            words.add(3).write_volatile(d);
            (&raw mut (*self.raw()).user_port).write_volatile(port.0.into());
        }
    }

    #[inline(always)]
    fn talk<A: IpAddress>(&self, address: A) -> Talk<A> {
        let kernel = Kernel::without_packet();
        let (own, features) =
            kernel.config().map_or_else(Default::default, |config| (config.namespace, config.features));
        let loopback = if A::BITS == 32 { Features::LOOPBACK4 } else { Features::LOOPBACK6 };
        // SAFETY: the context is the program's own; without one the helper tells of the machine's first namespace.
        let (socket, namespace, first, protocol) = unsafe {
            let context = self.0.as_ptr();
            let first = if own == 0 { bpf_get_netns_cookie(core::ptr::null_mut()) } else { own };
            let protocol = (&raw const (*self.raw()).protocol).read_volatile();
            (bpf_get_socket_cookie(context), bpf_get_netns_cookie(context), first, protocol)
        };
        Talk {
            socket,
            namespace,
            is_host: namespace == first,
            serves_loopback: features.has(loopback),
            protocol: Protocol(protocol),
            address,
            port: self.port(),
        }
    }

    /// As whom the process knows an address and port.
    #[inline(always)]
    fn name<A: IpAddress>(&self, address: A) -> Option<(A, Port)>
    where
        Kernel: ServiceTables<A>,
    {
        // SAFETY: the context is the program's own.
        let cookie = unsafe { bpf_get_socket_cookie(self.0.as_ptr()) };
        socket::name(cookie, address, self.port(), &Kernel::without_packet())
    }
}

/// The IPv4 address in one of IPv6.
#[inline(always)]
fn unmapped(address: Ipv6) -> Option<Ipv4> {
    let Ipv6([a, b, c, d]) = address;
    if a | b == 0 && c == MAPPED { Some(Ipv4(d)) } else { None }
}

#[inline(always)]
fn mapped(Ipv4(address): Ipv4) -> Ipv6 {
    Ipv6([0, 0, MAPPED, address])
}

macro_rules! told {
    ($told:ident, $v4:ident, $v6:ident) => {
        #[cgroup_sock_addr($v4)]
        pub fn $v4(context: SockAddrContext) -> i32 {
            let named = Named(&context);
            if let Some(Target { address, port, .. }) =
                socket::$told(&named.talk(named.ipv4()), &Kernel::without_packet())
            {
                named.set_ipv4(address, port);
            }
            GO_ON
        }

        #[cgroup_sock_addr($v6)]
        pub fn $v6(context: SockAddrContext) -> i32 {
            let named = Named(&context);
            let address = named.ipv6();
            let kernel = Kernel::without_packet();
            match unmapped(address) {
                Some(address) => {
                    if let Some(Target { address, port, .. }) = socket::$told(&named.talk(address), &kernel) {
                        named.set_ipv6(mapped(address), port);
                    }
                }
                None => {
                    if let Some(Target { address, port, .. }) = socket::$told(&named.talk(address), &kernel) {
                        named.set_ipv6(address, port);
                    }
                }
            }
            GO_ON
        }
    };
}

macro_rules! says {
    ($v4:ident, $v6:ident) => {
        #[cgroup_sock_addr($v4)]
        pub fn $v4(context: SockAddrContext) -> i32 {
            let named = Named(&context);
            if let Some((address, port)) = named.name(named.ipv4()) {
                named.set_ipv4(address, port);
            }
            GO_ON
        }

        #[cgroup_sock_addr($v6)]
        pub fn $v6(context: SockAddrContext) -> i32 {
            let named = Named(&context);
            let address = named.ipv6();
            match unmapped(address) {
                Some(address) => {
                    if let Some((address, port)) = named.name(address) {
                        named.set_ipv6(mapped(address), port);
                    }
                }
                None => {
                    if let Some((address, port)) = named.name(address) {
                        named.set_ipv6(address, port);
                    }
                }
            }
            GO_ON
        }
    };
}

told!(connect, connect4, connect6);
told!(send, sendmsg4, sendmsg6);
says!(recvmsg4, recvmsg6);
says!(getpeername4, getpeername6);
