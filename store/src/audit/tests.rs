//! The pure parts, judged by `tlog_tiles` and `signed_note` (Cloudflare's azul, ports of Go's sumdb), which share no code
//! with ours.

use std::cell::RefCell;
use std::collections::HashMap;

use signed_note::{StandardVerifier, VerifierList};
use tlog_tiles::{Hash as TheirHash, HashReader, TileReader};

use super::tree::Nodes;
use super::*;

/// Everything a log serves, in memory.
#[derive(Default)]
struct Shelf {
    edge: Edge,
    leaves: Vec<Hash>,
    full: HashMap<(u8, u64), Vec<Hash>>,
}

impl Shelf {
    fn of(leaves: u64) -> Self {
        let mut shelf = Self::default();
        (0..leaves).for_each(|n| shelf.push(Hash::of_leaf(&n.to_be_bytes())));
        shelf
    }

    fn push(&mut self, leaf: Hash) {
        self.leaves.push(leaf);
        let keep = |tile: Tile, hashes: &[Hash]| -> Result<(), ()> {
            let before = self.full.insert((tile.level(), tile.index()), hashes.to_vec());
            assert!(tile.is_full() && before.is_none(), "{tile:?}");
            Ok(())
        };
        self.edge.push(leaf, keep).unwrap();
    }

    fn hashes(&self, tile: Tile) -> Option<Vec<Hash>> {
        let full = self.full.get(&(tile.level(), tile.index()));
        let partial = || {
            let same =
                |(one, _): &(Tile, &[Hash])| (one.level(), one.index()) == (tile.level(), tile.index());
            self.edge
                .partial_tiles()
                .find(same)
                .map(|(_, hashes)| hashes.to_vec())
        };
        Some(full.cloned().or_else(partial)?.get(..tile.width())?.to_vec())
    }
}

impl Nodes for &Shelf {
    type Error = Tile;

    fn node(&mut self, height: u8, index: u64) -> Result<Hash, Tile> {
        let (tile, range) = Tile::of_node(height, index);
        let hashes = self.hashes(tile).ok_or(tile)?;
        Ok(tree::complete_root(&hashes[range]))
    }
}

/// Their reader of tiles, on our shelf. It asks for what a tree of its size needs, and checks what it gets.
struct Theirs<'s>(&'s Shelf, RefCell<usize>);

impl TileReader for Theirs<'_> {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[tlog_tiles::Tile]) -> Result<Vec<Vec<u8>>, tlog_tiles::Error> {
        *self.1.borrow_mut() += tiles.len();
        let read = |tile: &tlog_tiles::Tile| {
            // Their paths name the height, as Go's do; c2sp.org/tlog-tiles has done away with that.
            let path = tile.path().replacen("tile/8/", "tile/", 1);
            let TilePath::Hashes(ours) = TilePath::parse(&path).unwrap() else {
                panic!("{path}")
            };
            assert_eq!(TilePath::Hashes(ours).to_string(), path);
            assert!(ours.is_within(self.0.edge.size()), "{path}");
            let hashes = self.0.hashes(ours).ok_or(tlog_tiles::Error::InvalidTile)?;
            Ok(hashes.iter().flat_map(|hash| hash.0).collect())
        };
        tiles.iter().map(read).collect()
    }

    fn save_tiles(&self, _: &[tlog_tiles::Tile], _: &[Vec<u8>]) {}
}

const fn theirs(hash: Hash) -> TheirHash {
    TheirHash(hash.0)
}

/// Sizes at which a tree of tiles changes its shape.
const SIZES: [u64; 14] = [
    1, 2, 3, 7, 8, 255, 256, 257, 511, 512, 1000, 65_535, 65_536, 66_000,
];

#[test]
fn a_stranger_accepts_our_tiles_roots_and_proofs() {
    for size in SIZES {
        let shelf = Shelf::of(size);
        let root = shelf.edge.root();
        assert_eq!(tree::root(&mut &shelf, size).unwrap(), root);
        let reader = Theirs(&shelf, RefCell::default());
        let their_reader = tlog_tiles::TileHashReader::new(size, theirs(root), &reader);
        for index in [0, 1, 254, 255, 256, size / 2, size - 1] {
            if index >= size {
                continue;
            }
            let path = inclusion(&mut &shelf, index, size).unwrap();
            let leaf = shelf.leaves[index as usize];
            let their_path = tlog_tiles::prove_record(size, index, &their_reader).unwrap();
            assert_eq!(path.iter().copied().map(theirs).collect::<Vec<_>>(), their_path);
            tlog_tiles::check_record(&their_path, size, theirs(root), index, theirs(leaf)).unwrap();
            check_inclusion(leaf, index, &path, size, root).unwrap();
        }
        assert!(size == 1 || *reader.1.borrow() > 0);
        for old in SIZES.into_iter().filter(|old| *old <= size) {
            let old_root = tree::root(&mut &shelf, old).unwrap();
            let path = consistency(&mut &shelf, old, size).unwrap();
            let their_path = path.iter().copied().map(theirs).collect();
            tlog_tiles::check_tree(&their_path, size, theirs(root), old, theirs(old_root)).unwrap();
            check_consistency((old, old_root), &path, (size, root)).unwrap();
        }
    }
}

#[test]
fn no_other_proof_is_accepted() {
    for size in 1..40u64 {
        let shelf = Shelf::of(size);
        let root = shelf.edge.root();
        for index in 0..size {
            let leaf = shelf.leaves[index as usize];
            let path = inclusion(&mut &shelf, index, size).unwrap();
            check_inclusion(leaf, index, &path, size, root).unwrap();
            for at in 0..path.len() {
                let mut other = path.clone();
                other[at].0[7] ^= 1;
                assert_eq!(
                    check_inclusion(leaf, index, &other, size, root),
                    Err(ProofError::Root)
                );
                other.remove(at);
                assert!(check_inclusion(leaf, index, &other, size, root).is_err());
            }
            let longer = [&path[..], &[root]].concat();
            assert!(check_inclusion(leaf, index, &longer, size, root).is_err());
            if size > 1 {
                let neighbour = (index + 1) % size;
                assert!(check_inclusion(leaf, neighbour, &path, size, root).is_err());
            }
            assert_eq!(
                check_inclusion(leaf, size, &path, size, root),
                Err(ProofError::OutOfTree)
            );
        }
        for old in 1..=size {
            let old_root = tree::root(&mut &shelf, old).unwrap();
            let path = consistency(&mut &shelf, old, size).unwrap();
            check_consistency((old, old_root), &path, (size, root)).unwrap();
            let forged = Hash::of_leaf(b"forged");
            assert!(check_consistency((old, forged), &path, (size, root)).is_err());
            assert!(check_consistency((old, old_root), &path, (size, forged)).is_err());
            let longer = [&path[..], &[root]].concat();
            assert!(check_consistency((old, old_root), &longer, (size, root)).is_err());
            for at in 0..path.len() {
                let mut other = path.clone();
                other.remove(at);
                assert!(check_consistency((old, old_root), &other, (size, root)).is_err());
            }
        }
    }
}

#[test]
fn an_edge_read_back_from_its_tiles_goes_on_like_the_one_that_wrote_them() {
    for size in SIZES {
        let mut shelf = Shelf::of(size);
        let read = Edge::read(size, |tile| shelf.hashes(tile).ok_or(tile)).unwrap();
        assert_eq!(read, shelf.edge);
        let mut read = read;
        for n in size..size + 300 {
            let leaf = Hash::of_leaf(&n.to_be_bytes());
            shelf.push(leaf);
            read.push(leaf, |_, _| -> Result<(), ()> { Ok(()) }).unwrap();
        }
        assert_eq!(read.root(), shelf.edge.root());
    }
}

#[test]
fn the_known_answers_of_rfc_6962_trees() {
    // The seven leaves of the reference implementation's tests (certificate-transparency, merkle_tree_test).
    let leaves: [&[u8]; 8] = [
        b"",
        b"\x00",
        b"\x10",
        b"\x20\x21",
        b"\x30\x31",
        b"\x40\x41\x42\x43",
        b"\x50\x51\x52\x53\x54\x55\x56\x57",
        b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
    ];
    let hex = |hash: Hash| {
        hash.0
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let mut shelf = Shelf::default();
    assert_eq!(
        hex(shelf.edge.root()),
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    );
    let roots: Vec<String> = leaves
        .into_iter()
        .map(|leaf| {
            shelf.push(Hash::of_leaf(leaf));
            hex(shelf.edge.root())
        })
        .collect();
    assert_eq!(
        roots[0],
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    );
    assert_eq!(
        roots[7],
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
    );
}

#[test]
fn paths_are_those_of_the_specification_and_have_one_spelling() {
    let hashes = |level, index, width| TilePath::Hashes(Tile::new(level, index, width).unwrap());
    for (path, expected) in [
        ("tile/0/000", hashes(0, 0, 256)),
        ("tile/4/x001/x234/067", hashes(4, 1_234_067, 256)),
        ("tile/4/x001/x234/067.p/8", hashes(4, 1_234_067, 8)),
        ("tile/1/999.p/255", hashes(1, 999, 255)),
        (
            "tile/entries/x001/000.p/1",
            TilePath::Entries(Tile::new(0, 1_000, 1).unwrap()),
        ),
    ] {
        assert_eq!(TilePath::parse(path), Some(expected), "{path}");
        assert_eq!(expected.to_string(), path);
    }
    for path in [
        "",
        "tile",
        "tile/0",
        "tile/0/",
        "tile/0/0",
        "tile/0/0000",
        "tile/00/000",
        "tile/8/000",
        "tile/+1/000",
        "tile/0/x000/000",
        "tile/0/001/000",
        "tile/0/x001",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/000.p/",
        "tile/0/../checkpoint",
        "tile/0/000/",
        "/tile/0/000",
        "tile/0/x018/x446/x744/x073/x709/x551/616",
        "tile/0/x999/x999/x999/x999/x999/x999/x999/999",
    ] {
        assert_eq!(TilePath::parse(path), None, "{path}");
    }
}

#[test]
fn tiles_of_a_size_are_those_of_the_specification() {
    // c2sp.org/tlog-tiles: 70,000 leaves are 273 full tiles, one of width 112, one full tile and one of width 17 above,
    // and one of width 1 above that.
    let of = |level, index| Tile::in_tree(level, index, 70_000).map(Tile::width);
    assert_eq!((of(0, 272), of(0, 273), of(0, 274)), (Some(256), Some(112), None));
    assert_eq!((of(1, 0), of(1, 1), of(1, 2)), (Some(256), Some(17), None));
    assert_eq!((of(2, 0), of(2, 1), of(3, 0)), (Some(1), None, None));
    let within = |width| Tile::new(0, 273, width).unwrap().is_within(70_000);
    assert!(within(1) && within(112) && !within(113) && !within(256));
    assert!(!Tile::full(0, u64::MAX / 2).is_within(u64::MAX));
}

fn key(name: &str) -> SigningKey {
    SigningKey::new(name, &[7; 32]).unwrap()
}

#[test]
fn a_stranger_accepts_our_notes_keys_and_checkpoints() {
    let key = key("example.com/log+no".replace('+', "-").as_str());
    let checkpoint = Checkpoint {
        origin: key.verifier().name().into(),
        size: 70_000,
        root: Hash::of_leaf(b"leaf"),
    };
    let note = key.sign(&checkpoint.to_text());
    let their_key = StandardVerifier::new(&key.verifier().to_string()).unwrap();
    let known = VerifierList::new(vec![Box::new(their_key)]);
    let their_note = signed_note::Note::from_bytes(note.as_bytes()).unwrap();
    let (verified, others) = their_note.verify(&known).unwrap();
    assert_eq!((verified.len(), others.len()), (1, 0));
    let theirs = tlog_tiles::Checkpoint::from_bytes(their_note.text()).unwrap();
    assert_eq!(
        (theirs.origin(), theirs.size(), theirs.hash().0),
        (&*checkpoint.origin, 70_000, checkpoint.root.0)
    );
    assert_eq!(Checkpoint::verify(&note, key.verifier()).unwrap(), checkpoint);
    let parsed: VerifierKey = key.verifier().to_string().parse().unwrap();
    assert_eq!(&parsed, key.verifier());
}

#[test]
fn the_examples_of_the_specifications_are_read() {
    // c2sp.org/tlog-checkpoint: its example, with the key of Go's checksum database for a second one.
    let text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
    let checkpoint = Checkpoint::parse(text).unwrap();
    assert_eq!(checkpoint.size, 20_852_163);
    assert_eq!(checkpoint.to_text(), text);
    let key: VerifierKey = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
        .parse()
        .unwrap();
    assert_eq!(key.name(), "sum.golang.org");
}

#[test]
fn no_changed_note_verifies() {
    let key = key("log");
    let checkpoint = Checkpoint {
        origin: "log".into(),
        size: 5,
        root: Hash::of_leaf(b""),
    };
    let note = key.sign(&checkpoint.to_text());
    for at in 0..note.len() {
        for bit in 0..8 {
            let mut bytes = note.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            let Ok(changed) = String::from_utf8(bytes) else {
                continue;
            };
            assert!(
                Checkpoint::verify(&changed, key.verifier()).is_err(),
                "{at}: {changed}"
            );
        }
    }
    for (text, error) in [
        ("", CheckpointError::Note(NoteError::Malformed)),
        ("log\n5\n\n", CheckpointError::Note(NoteError::Malformed)),
        (&checkpoint.to_text(), CheckpointError::Note(NoteError::Malformed)),
    ] {
        assert_eq!(Checkpoint::verify(text, key.verifier()), Err(error));
    }
    let other = key.sign(&checkpoint.to_text().replace("log\n", "other\n"));
    assert_eq!(
        Checkpoint::verify(&other, key.verifier()),
        Err(CheckpointError::Origin)
    );
    let stranger = SigningKey::new("log", &[8; 32]).unwrap();
    assert_eq!(
        Checkpoint::verify(&note, stranger.verifier()),
        Err(CheckpointError::Note(NoteError::NotSigned))
    );
    for text in ["", "log", "log+00000000+AQ==", "a b+1+AQ==", "log+zzzzzzzz+AQ=="] {
        assert_eq!(text.parse::<VerifierKey>(), Err(NoteError::Key));
    }
}

#[test]
fn cosignatures_are_passed_over_and_named() {
    let key = key("log");
    let note = key.sign("log\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n");
    let cosigned = format!("{note}\u{2014} witness.example AAAAAAECAwQ=\n");
    assert_eq!(Checkpoint::verify(&cosigned, key.verifier()).unwrap().size, 0);
    assert_eq!(
        Note::parse(&cosigned).unwrap().others(key.verifier()),
        ["witness.example"]
    );
}

#[test]
fn proofs_travel_as_text() {
    let shelf = Shelf::of(300);
    let key = key("log");
    let checkpoint = Checkpoint {
        origin: "log".into(),
        size: 300,
        root: shelf.edge.root(),
    };
    let proof = InclusionProof {
        index: 77,
        path: inclusion(&mut &shelf, 77, 300).unwrap(),
        checkpoint: key.sign(&checkpoint.to_text()),
    };
    let text = proof.to_text();
    let read = InclusionProof::parse(&text).unwrap();
    assert_eq!(read, proof);
    assert_eq!(read.verify(shelf.leaves[77], key.verifier()).unwrap(), checkpoint);
    assert_eq!(
        read.verify(shelf.leaves[78], key.verifier()),
        Err(ProofTextError::Proof(ProofError::Root))
    );
    let with_extra = text.replacen("index", "extra AAAA\nindex", 1);
    assert_eq!(InclusionProof::parse(&with_extra).unwrap(), proof);
    for broken in [
        "",
        "c2sp.org/tlog-proof@v1\n\n",
        &text.replacen("index 77", "index 077", 1),
        &text.replacen("@v1", "@v2", 1),
    ] {
        assert_eq!(InclusionProof::parse(broken), Err(ProofTextError::Malformed));
    }
}

impl HashReader for &Shelf {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<TheirHash>, tlog_tiles::Error> {
        let read = |index: &u64| {
            let (level, n) = tlog_tiles::split_stored_hash_index(*index);
            let mut shelf: &Shelf = self;
            let node = Nodes::node(&mut shelf, level, n);
            node.map(theirs).map_err(|_| tlog_tiles::Error::IndexesNotInTree)
        };
        indexes.iter().map(read).collect()
    }
}

#[test]
fn a_stranger_computes_the_same_roots_from_our_nodes() {
    for size in 1..600 {
        let shelf = Shelf::of(size);
        let their_root = tlog_tiles::tree_hash(size, &&shelf).unwrap();
        assert_eq!(their_root.0, shelf.edge.root().0, "{size}");
    }
}
