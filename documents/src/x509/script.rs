//! Text that is not what it looks like (UTS #39).

use unicode_script::{Script, UnicodeScript};

/// Scripts that are written together: every text may mix Latin with the scripts of one of these lists (UTS #39
/// 5.2, "highly restrictive").
const TOGETHER: [&[Script]; 3] = [
    &[Script::Han, Script::Hiragana, Script::Katakana],
    &[Script::Han, Script::Bopomofo],
    &[Script::Han, Script::Hangul],
];

/// Whether `text` holds characters that are not seen or turn it around, or mixes scripts that are not written
/// together.
pub(super) fn is_deceptive(text: &str) -> bool {
    text.chars().any(is_unseen) || !is_of_one_writing(text)
}

/// Controls, the characters that Unicode lets software ignore (DerivedCoreProperties,
/// Default_Ignorable_Code_Point), line separators, bidirectional controls, private use and non-characters.
fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{e000}'..='\u{f8ff}' | '\u{fdd0}'..='\u{fdef}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{10ffff}')
        || (c as u32 & 0xfffe) == 0xfffe
}

fn is_of_one_writing(text: &str) -> bool {
    let mut scripts: Vec<Script> = Vec::new();
    for script in text.chars().map(|c| c.script()) {
        if !matches!(script, Script::Common | Script::Inherited) && !scripts.contains(&script) {
            scripts.push(script);
        }
    }
    if scripts.len() <= 1 {
        return true;
    }
    scripts.retain(|script| *script != Script::Latin);
    TOGETHER
        .iter()
        .any(|together| scripts.iter().all(|script| together.contains(script)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_deceives_and_what_does_not() {
        for honest in [
            "北京示例（中国）Ltd.",
            "Li Lei",
            "カタカナ・ひらがな漢字",
            "Ελλάδα",
            "Москва 1",
            "한국 韓國",
        ] {
            assert!(!is_deceptive(honest), "{honest}");
        }
        for deceptive in [
            "pаypal",
            "Αpple",
            "bank\u{202e}moc",
            "a\u{200b}b",
            "a\0b",
            "x\u{fe0f}",
            "x\u{e000}",
        ] {
            assert!(is_deceptive(deceptive), "{deceptive}");
        }
    }
}
