//! The fuzzing corpus as plain tests: each seed, cut off and with bits flipped, through its parser.

#[path = "../../../fuzz/src/parsers.rs"]
#[expect(unreachable_pub, reason = "the fuzz targets call them from outside")]
mod parsers;

use std::path::Path;

/// Cuts and flips of one seed. The fuzzer does more of it.
const CHANGES: usize = 48;

#[test]
fn no_seed_and_nothing_near_it_breaks_a_parser() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .join("fuzz/corpus");
    for (name, parser) in parsers::ALL {
        let mut seeds = 0;
        for entry in std::fs::read_dir(corpus.join(name)).unwrap() {
            let seed = std::fs::read(entry.unwrap().path()).unwrap();
            parser(&seed);
            for nth in 0..CHANGES {
                let at = seed.len() * nth / CHANGES;
                parser(&seed[..at]);
                let mut flipped = seed.clone();
                flipped
                    .iter_mut()
                    .skip(at)
                    .take(1)
                    .for_each(|byte| *byte ^= 1 << (nth % 8));
                parser(&flipped);
            }
            seeds += 1;
        }
        assert!(seeds > 0, "no seeds for {name}");
    }
}
