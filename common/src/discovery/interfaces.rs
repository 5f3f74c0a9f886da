//! Which network interfaces discovery uses. Pure: each binary lists its interfaces and passes them in.
//!
//! 255.255.255.255 leaves a machine by one interface only, so that each subnet has to be addressed by itself
//! (`docs/discovery.md`).

use std::net::{IpAddr, Ipv4Addr};

/// An IPv4 address of a network interface, as the operating system lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub address: Ipv4Addr,
    /// 0 to 32.
    pub prefix: u8,
    pub is_up: bool,
    pub is_point_to_point: bool,
}

/// Where to send to reach the neighbours on one interface.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    pub interface: String,
    /// This machine's own address there.
    pub address: Ipv4Addr,
    pub prefix: u8,
    /// The subnet-directed broadcast address.
    pub broadcast: Ipv4Addr,
}

/// Beginnings of the names of interfaces that lead to containers, virtual machines and VPNs: nobody watches an
/// underwater robot there, and a VPN's far end is not to be bothered. Wi-Fi, Ethernet, USB tethering and bridges made
/// by hand (`br0`) stay.
const VIRTUAL: [&str; 16] = [
    "docker",
    "veth",
    "br-",
    "virbr",
    "vmnet",
    "vboxnet",
    "vEthernet",
    "lxc",
    "lxd",
    "cni",
    "tun",
    "tap",
    "wg",
    "tailscale",
    "zt",
    "utun",
];

/// Whether an interface is used when the user names none.
pub fn suitable(interface: &Interface) -> bool {
    interface.is_up
        && !interface.address.is_loopback()
        && !interface.is_point_to_point
        && !VIRTUAL.iter().any(|beginning| interface.name.starts_with(beginning))
        && broadcast(interface).is_some()
}

/// The interfaces to send on.
pub fn select(interfaces: &[Interface], wanted: &[String], host: IpAddr) -> Vec<Target> {
    let mut targets: Vec<Target> = Vec::new();
    for target in chosen(interfaces, wanted, host).into_iter().filter_map(target) {
        // Two addresses of one interface in one subnet have one broadcast address; to send twice would only double the
        // traffic.
        let is_same = |known: &Target| known.broadcast == target.broadcast && known.interface == target.interface;
        if !targets.iter().any(is_same) {
            targets.push(target);
        }
    }
    targets
}

/// Pairs of interfaces that are in one subnet: the system answers by one of them alone.
pub fn rivals(targets: &[Target]) -> Vec<(&Target, &Target)> {
    let is_rival = |a: &Target, b: &Target| a.interface != b.interface && a.broadcast == b.broadcast;
    let pairs = targets.iter().enumerate().flat_map(|(at, a)| targets[at + 1..].iter().map(move |b| (a, b)));
    pairs.filter(|(a, b)| is_rival(a, b)).collect()
}

/// What to tell the user of such a pair.
pub fn describe_rivals((a, b): (&Target, &Target)) -> String {
    format!(
        "{} ({}) and {} ({}) are in one subnet, and the system reaches it by one of them alone: give them different \
         subnets, or unplug one",
        a.interface, a.address, b.interface, b.address
    )
}

/// The interface, of those that the user named, by which `peer` is reached. None: as the system routes it, where none
/// was named, where `peer` is this machine itself, or where none of several leads to its subnet.
///
/// # Errors
/// When there is none of these names; the message says so.
pub fn leading_to<'a>(all: &'a [Interface], named: &[String], peer: IpAddr) -> Result<Option<&'a Interface>, String> {
    if named.is_empty() || peer.is_loopback() || all.iter().any(|interface| interface.address == peer) {
        return Ok(None);
    }
    let candidates = chosen(all, named, Ipv4Addr::UNSPECIFIED.into());
    let Some(first) = candidates.first() else {
        return Err(format!("there is no network interface named {}", named.join(", ")));
    };
    let near = candidates.iter().find(|interface| is_beside(interface, peer));
    let is_only = candidates.iter().all(|interface| interface.name == first.name);
    Ok(near.or(is_only.then_some(first)).copied())
}

/// What to tell the user of a `peer` that does not answer, where several interfaces are in its subnet.
pub fn describe_choice(all: &[Interface], peer: IpAddr) -> Option<String> {
    let mut beside: Vec<&Interface> = Vec::new();
    for interface in all.iter().filter(|interface| suitable(interface) && is_beside(interface, peer)) {
        if !beside.iter().any(|known| known.name == interface.name) {
            beside.push(interface);
        }
    }
    if beside.len() < 2 || all.iter().any(|interface| interface.address == peer) {
        return None;
    }
    let cards: Vec<_> = beside.iter().map(|Interface { name, address, .. }| format!("{name} ({address})")).collect();
    let options: Vec<_> = beside.iter().map(|interface| format!("--interface {}", interface.name)).collect();
    Some(format!(
        "{} are in the subnet of {peer}, and the system uses one of them alone: give {}",
        cards.join(" and "),
        options.join(" or ")
    ))
}

fn is_beside(interface: &Interface, peer: IpAddr) -> bool {
    target(interface).is_some_and(|target| is_neighbour(&[target], peer))
}

/// One of those that are in one subnet.
pub fn one_for_each_subnet(targets: Vec<Target>) -> Vec<Target> {
    let mut kept: Vec<Target> = Vec::new();
    for target in targets {
        if !kept.iter().any(|known| known.broadcast == target.broadcast) {
            kept.push(target);
        }
    }
    kept
}

/// The interfaces that are used, those without broadcasts among them.
///
/// `wanted` are names or addresses of interfaces from the user; empty means every [`suitable`] one, or loopback if
/// there is none. `host` is the address that the server listens on: only the interface that has it is used, as nobody
/// can reach the server by another. An unspecified address (0.0.0.0, `::`) excludes nothing.
pub fn chosen<'a>(interfaces: &'a [Interface], wanted: &[String], host: IpAddr) -> Vec<&'a Interface> {
    let reachable = |interface: &&Interface| match host {
        IpAddr::V4(host) if host.is_loopback() => interface.address.is_loopback(),
        IpAddr::V4(host) => host.is_unspecified() || interface.address == host,
        IpAddr::V6(host) if host.is_loopback() => interface.address.is_loopback(),
        // A server that listens on one IPv6 address alone cannot be found: discovery is IPv4.
        IpAddr::V6(host) => host.is_unspecified(),
    };
    let candidates: Vec<_> = interfaces.iter().filter(reachable).collect();
    let mut chosen: Vec<_> = if wanted.is_empty() && (host.is_unspecified() || host.is_loopback()) {
        candidates.iter().copied().filter(|interface| suitable(interface)).collect()
    } else if wanted.is_empty() {
        // The user named the address, which is as good as naming the interface: it may be a VPN.
        candidates.clone()
    } else {
        let is_wanted = |interface: &Interface| {
            wanted.iter().any(|name| *name == interface.name || name.parse() == Ok(interface.address))
        };
        candidates.iter().copied().filter(|interface| is_wanted(interface)).collect()
    };
    if chosen.is_empty() && wanted.is_empty() {
        chosen = candidates.into_iter().filter(|interface| interface.address.is_loopback()).collect();
    }
    chosen
}

/// Whether an address is in the subnet of one of the targets.
pub fn is_neighbour(targets: &[Target], address: IpAddr) -> bool {
    let IpAddr::V4(address) = address else { return false };
    targets.iter().any(|target| (address.to_bits() ^ target.address.to_bits()) & mask(target.prefix) == 0)
}

/// The target of an interface; `None` where broadcasts are impossible.
pub fn target(interface: &Interface) -> Option<Target> {
    let &Interface { ref name, address, prefix, .. } = interface;
    Some(Target { interface: name.clone(), address, prefix, broadcast: broadcast(interface)? })
}

/// The subnet-directed broadcast address, computed because not every system reports one; a subnet of one or two
/// addresses has none.
fn broadcast(interface: &Interface) -> Option<Ipv4Addr> {
    if interface.address.is_unspecified() || !(1..=30).contains(&interface.prefix) {
        return None;
    }
    Some(Ipv4Addr::from_bits(interface.address.to_bits() | !mask(interface.prefix)))
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32u32.saturating_sub(prefix.into())).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

    fn interface(name: &str, address: &str, prefix: u8) -> Interface {
        Interface {
            name: name.to_owned(),
            address: address.parse().unwrap(),
            prefix,
            is_up: true,
            is_point_to_point: false,
        }
    }

    fn machine() -> Vec<Interface> {
        vec![
            interface("lo", "127.0.0.1", 8),
            interface("eth0", "192.168.2.2", 24),
            interface("wlan0", "10.20.30.40", 20),
            interface("docker0", "172.17.0.1", 16),
            interface("br-1f2e3d", "172.18.0.1", 16),
            interface("veth12ab", "169.254.1.1", 16),
            interface("virbr0", "192.168.122.1", 24),
            interface("tailscale0", "100.64.0.7", 32),
            interface("wg0", "10.9.0.2", 24),
            interface("ztabc", "10.147.17.5", 24),
        ]
    }

    fn broadcasts(interfaces: &[Interface], wanted: &[&str], host: IpAddr) -> Vec<String> {
        let wanted: Vec<_> = wanted.iter().map(|&name| name.to_owned()).collect();
        select(interfaces, &wanted, host).iter().map(|target| target.broadcast.to_string()).collect()
    }

    #[test]
    fn each_real_interface_gets_its_own_broadcast_and_virtual_ones_none() {
        assert_eq!(broadcasts(&machine(), &[], ANY), ["192.168.2.255", "10.20.31.255"]);
    }

    #[test]
    fn loopback_is_used_when_it_is_all_there_is() {
        assert_eq!(broadcasts(&machine()[..1], &[], ANY), ["127.255.255.255"]);
        let only_docker = [machine()[0].clone(), machine()[3].clone()];
        assert_eq!(broadcasts(&only_docker, &[], ANY), ["127.255.255.255"]);
    }

    #[test]
    fn the_user_decides_by_name_or_address() {
        assert_eq!(broadcasts(&machine(), &["lo"], ANY), ["127.255.255.255"]);
        assert_eq!(broadcasts(&machine(), &["wg0", "192.168.2.2"], ANY), ["192.168.2.255", "10.9.0.255"]);
        assert_eq!(broadcasts(&machine(), &["eth7"], ANY), [""; 0]);
    }

    #[test]
    fn a_server_bound_to_one_address_is_announced_there_alone() {
        assert_eq!(broadcasts(&machine(), &[], "192.168.2.2".parse().unwrap()), ["192.168.2.255"]);
        assert_eq!(broadcasts(&machine(), &[], "10.9.0.2".parse().unwrap()), ["10.9.0.255"]);
        assert_eq!(broadcasts(&machine(), &[], "127.0.0.1".parse().unwrap()), ["127.255.255.255"]);
        assert_eq!(broadcasts(&machine(), &["eth0"], "127.0.0.1".parse().unwrap()), [""; 0]);
        assert_eq!(broadcasts(&machine(), &[], "::1".parse().unwrap()), ["127.255.255.255"]);
        assert_eq!(broadcasts(&machine(), &[], "fe80::1".parse().unwrap()), [""; 0]);
    }

    #[test]
    fn interfaces_that_are_down_or_without_broadcast_are_left_out() {
        let mut interfaces = vec![
            interface("eth0", "192.168.2.2", 24),
            interface("eth1", "10.0.0.1", 31),
            interface("ppp0", "10.1.0.1", 24),
        ];
        interfaces[0].is_up = false;
        interfaces[2].is_point_to_point = true;
        assert_eq!(broadcasts(&interfaces, &[], ANY), [""; 0]);
    }

    #[test]
    fn two_addresses_of_a_card_in_one_subnet_are_one_target_and_two_cards_are_two() {
        let eth0 = interface("eth0", "192.168.2.2", 24);
        let interfaces = [eth0.clone(), interface("eth0", "192.168.2.4", 24), interface("wlan0", "192.168.2.3", 24)];
        let targets = select(&interfaces, &[], ANY);
        let names: Vec<_> = targets.iter().map(|target| target.interface.as_str()).collect();
        assert_eq!(names, ["eth0", "wlan0"]);
        let [pair] = rivals(&targets)[..] else { panic!("{targets:?}") };
        let text = describe_rivals(pair);
        assert!(text.contains("eth0 (192.168.2.2) and wlan0 (192.168.2.3) are in one subnet"), "{text}");
        assert_eq!(one_for_each_subnet(targets).len(), 1);
        assert!(rivals(&select(&machine(), &[], ANY)).is_empty());
    }

    #[test]
    fn the_interface_that_was_named_leads_to_the_peer() {
        let mut all = machine();
        all.push(interface("eth1", "192.168.2.3", 24));
        let lead = |named: &[&str], peer: &str| {
            let named: Vec<_> = named.iter().map(|&name| name.to_owned()).collect();
            leading_to(&all, &named, peer.parse().unwrap()).map(|found| found.map(|found| found.name.as_str()))
        };
        assert_eq!(lead(&["eth1"], "192.168.2.9"), Ok(Some("eth1")));
        assert_eq!(lead(&["192.168.2.3"], "192.168.2.9"), Ok(Some("eth1")));
        assert_eq!(lead(&["wlan0", "eth1"], "192.168.2.9"), Ok(Some("eth1")));
        // Behind a router.
        assert_eq!(lead(&["eth1"], "8.8.8.8"), Ok(Some("eth1")));
        assert_eq!(lead(&["wlan0", "eth1"], "8.8.8.8"), Ok(None));
        // This machine, and what was not named.
        assert_eq!(lead(&["eth1"], "192.168.2.2"), Ok(None));
        assert_eq!(lead(&["eth1"], "127.0.0.1"), Ok(None));
        assert_eq!(lead(&[], "192.168.2.9"), Ok(None));
        assert_eq!(lead(&["eth7"], "192.168.2.9"), Err("there is no network interface named eth7".to_owned()));
    }

    #[test]
    fn of_two_interfaces_beside_a_peer_both_are_named_with_what_to_give() {
        let mut all = machine();
        let describe = |all: &[Interface], peer: &str| describe_choice(all, peer.parse().unwrap());
        assert_eq!(describe(&all, "192.168.2.9"), None);
        // A second address of one card is no second card.
        all.extend([interface("eth0", "192.168.2.4", 24), interface("eth1", "192.168.2.3", 24)]);
        let text = describe(&all, "192.168.2.9").unwrap();
        assert!(
            text.starts_with("eth0 (192.168.2.2) and eth1 (192.168.2.3) are in the subnet of 192.168.2.9"),
            "{text}"
        );
        assert!(text.ends_with("give --interface eth0 or --interface eth1"), "{text}");
        assert_eq!(describe(&all, "192.168.2.3"), None);
        assert_eq!(describe(&all, "8.8.8.8"), None);
    }

    #[test]
    fn an_interface_that_was_named_is_used_although_it_has_no_broadcast() {
        let machine = machine();
        let named = chosen(&machine, &["tailscale0".to_owned()], ANY);
        assert_eq!(named.iter().map(|interface| interface.name.as_str()).collect::<Vec<_>>(), ["tailscale0"]);
        assert_eq!(select(&machine, &["tailscale0".to_owned()], ANY), []);
    }

    #[test]
    fn neighbours_are_told_by_subnet() {
        let targets = select(&machine(), &[], ANY);
        assert!(is_neighbour(&targets, "10.20.17.3".parse().unwrap()));
        assert!(!is_neighbour(&targets, "10.20.32.3".parse().unwrap()));
        assert!(!is_neighbour(&targets, "127.0.0.1".parse().unwrap()));
        assert!(!is_neighbour(&targets, "::1".parse().unwrap()));
        assert!(!is_neighbour(&[], "10.20.17.3".parse().unwrap()));
    }
}
