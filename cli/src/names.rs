//! Names for what its owner does not name.

use uuid::Uuid;

const QUALITIES: [&str; 32] = [
    "amber", "bold", "brave", "bright", "calm", "clever", "cosmic", "crisp", "eager", "early",
    "fair", "fancy", "gentle", "golden", "grand", "happy", "humble", "keen", "kind", "lively",
    "lucky", "mellow", "neat", "noble", "proud", "quick", "quiet", "rapid", "silver", "steady",
    "sunny", "wise",
];

const ANIMALS: [&str; 32] = [
    "badger", "bear", "beaver", "bison", "crane", "deer", "dolphin", "eagle", "falcon", "ferret",
    "finch", "fox", "gecko", "hare", "heron", "ibis", "koala", "lark", "lemur", "lynx", "marten",
    "mole", "newt", "otter", "owl", "panda", "raven", "robin", "seal", "stork", "swan", "wren",
];

/// A new name, such as `quiet-otter-578350`. There are about a thousand million.
pub fn generate() -> String {
    let random = Uuid::new_v4().as_u128();
    let pick = |words: &[&'static str; 32], shift: u32| words[(random >> shift) as usize % 32];
    let number = random as u64 as u32 % 1_000_000;
    format!("{}-{}-{number:06}", pick(&QUALITIES, 96), pick(&ANIMALS, 104))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_two_words_and_six_digits() {
        for _ in 0..100 {
            let name = generate();
            let parts: Vec<&str> = name.split('-').collect();
            let [quality, animal, number] = parts[..] else { panic!("{name}") };
            assert!(QUALITIES.contains(&quality) && ANIMALS.contains(&animal), "{name}");
            assert!(number.len() == 6 && number.bytes().all(|b| b.is_ascii_digit()), "{name}");
        }
        assert_ne!(generate(), generate());
    }
}
