//! Tables that an agent has made anew with another size, and taken over.

use super::room::{answer_of, name, problems, served, servers};
use super::*;

/// An agent with tables of this size succeeds.
fn succeed(writer: Writer<Memory>, room: Room, state: &State) -> Writer<Memory> {
    let memory = Memory { log: Vec::new(), ..writer.tables }.resized(room);
    let mut successor = Writer::open(memory, room, own_addresses(), true).unwrap();
    successor.take_over(state.clone()).unwrap();
    successor
}

#[test]
fn whoever_lies_beyond_smaller_tables_is_refused_and_the_others_are_served() {
    let state: State = (1..100).map(|ip| (name(&format!("{ip:02}")), served(ip, ip..ip + 1))).collect();
    let mut writer = open(Memory::default());
    writer.take_over(state.clone()).unwrap();
    let small = Room { backends: 40, sets: 20, members: 160, ..ROOM };
    let mut writer = succeed(writer, small, &state);
    let answers = |writer: &Writer<Memory>| state.values().map(|port| servers(writer, port)).collect::<Vec<_>>();
    let wanted: Vec<Answer> = state.values().map(|port| answer_of(port)).collect();
    assert_eq!((problems(&writer).len(), writer.refused()), (80, 80));
    assert_eq!(answers(&writer), [&wanted[..19], &vec![Answer::Nobody; 80]].concat());
    // One that goes makes room for another.
    writer.apply([(name("01"), None)]).unwrap();
    assert_eq!((problems(&writer).len(), answers(&writer)[19].clone()), (79, wanted[19].clone()));
    let writer = succeed(writer, ROOM, &state);
    assert_eq!((problems(&writer), answers(&writer)), (vec![], wanted));
    check_after(&writer, &state).unwrap();
}

/// Whether whoever fits is served as is wanted, and whoever does not by nobody else. After a change there may not even be room to
/// say so: then it is as `before`, or unknown where another has left.
fn check_small(writer: &Writer<Memory>, state: &State, before: Option<&State>) -> Result<(), String> {
    let refused: BTreeSet<&PortName> =
        writer.problems().filter(|(_, text)| !text.contains("Maglev")).map(|(name, _)| name).collect();
    for (name, port) in state {
        for (frontend, side) in port.frontends.iter().flat_map(|frontend| SIDES.map(|side| (frontend, side))) {
            let at = place(name, frontend);
            let (seen, _) = ask(&writer.tables, &at, side)?;
            let wanted = answer(port, frontend.kind, side);
            let is_less = |than: &Answer| match (&seen, than) {
                (Answer::Among(some), Answer::Among(all)) => some.is_subset(all),
                (Answer::Nobody, _) => true,
                _ => seen == *than,
            };
            let was =
                || before.is_some_and(|before| seen == Answer::Unknown || is_less(&self::wanted(before, &at, side)));
            if !(seen == wanted || refused.contains(name) && (is_less(&wanted) || was())) {
                return Err(format!("{at:?} {side:?}: {seen:?}, not {wanted:?}"));
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn tables_of_any_size_are_taken_over(
        batches in changes(1..5),
        (backends, sets, members) in (2_u32..24, 2_u32..14, 4_u32..48),
        next in changes(1..2),
    ) {
        let mut writer = open(Memory::default());
        let (mut wishes, mut state) = (Wishes::new(), State::new());
        for batch in batches {
            let (after, delta) = wish(&mut wishes, batch);
            writer.apply(delta).unwrap();
            writer.paid();
            state = after;
        }
        let larger = succeed(writer, Room { backends: 512, sets: 256, members: 2048, ..ROOM }, &state);
        prop_assert!(larger.tables.log.iter().all(|write| matches!(write, Write::Settle)), "{:?}", larger.tables.log);

        let mut smaller = succeed(larger, Room { backends, sets, members, ..ROOM }, &state);
        let checked = check_small(&smaller, &state, None);
        prop_assert!(checked.is_ok(), "{}", checked.unwrap_err());
        let (after, delta) = wish(&mut wishes, next[0].clone());
        smaller.apply(delta).unwrap();
        let checked = check_small(&smaller, &after, Some(&state));
        prop_assert!(checked.is_ok(), "after a change: {}", checked.unwrap_err());

        let checked = check_after(&succeed(smaller, ROOM, &after), &after);
        prop_assert!(checked.is_ok(), "with room again: {}", checked.unwrap_err());
    }
}
