//! Themes: readable contrast, distinguishable without red and green, no colours in mono.

use ratatui::style::{Color, Modifier};

use crate::command::Palette;
use crate::console::theme::{Theme, Tone};

const TONES: [Tone; 10] = [
    Tone::Good,
    Tone::Warn,
    Tone::Bad,
    Tone::Dim,
    Tone::Key,
    Tone::Series(0),
    Tone::Series(1),
    Tone::Series(2),
    Tone::Series(3),
    Tone::Series(4),
];

/// The channels of an indexed colour, 0 to 1. The first 16 differ between terminals.
fn channels(color: Color) -> [f64; 3] {
    let Color::Indexed(number) = color else { panic!("{color:?} differs between terminals") };
    let step = |level: u8| if level == 0 { 0.0 } else { (55.0 + 40.0 * f64::from(level)) / 255.0 };
    match number {
        16..=231 => {
            let at = number - 16;
            [step(at / 36), step(at / 6 % 6), step(at % 6)]
        }
        232.. => [(8.0 + 10.0 * f64::from(number - 232)) / 255.0; 3],
        _ => panic!("{number} differs between terminals"),
    }
}

fn linear(channel: f64) -> f64 {
    if channel <= 0.04045 { channel / 12.92 } else { ((channel + 0.055) / 1.055).powf(2.4) }
}

/// The contrast ratio of WCAG 2.
fn contrast(one: [f64; 3], other: [f64; 3]) -> f64 {
    let luminance = |[r, g, b]: [f64; 3]| 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    let (a, b) = (luminance(one), luminance(other));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

#[test]
fn every_colour_is_readable_on_its_background() {
    for (palette, backgrounds) in [
        (Palette::Dark, [[0.0; 3], [0.117; 3]]),
        (Palette::ColourBlind, [[0.0; 3], [0.117; 3]]),
        (Palette::Light, [[1.0; 3], [0.96; 3]]),
    ] {
        let theme = Theme { palette, unicode: true };
        for tone in TONES {
            let colour = channels(theme.style(tone).fg.unwrap());
            for background in backgrounds {
                assert!(
                    contrast(colour, background) >= 4.5,
                    "{palette:?} {tone:?} {}",
                    contrast(colour, background)
                );
            }
        }
        let selected = theme.style(Tone::Selected);
        let (text, bar) = (channels(selected.fg.unwrap()), channels(selected.bg.unwrap()));
        assert!(contrast(text, bar) >= 4.5, "{palette:?}");
    }
}

#[test]
fn the_colour_blind_theme_distinguishes_states_without_green_and_red() {
    // Deuteranopia after Vienot, Brettel and Mollon (1999), on linear channels.
    let seen = |color: Color| {
        let [r, g, b] = channels(color).map(linear);
        [0.29275 * r + 0.70725 * g, 0.29275 * r + 0.70725 * g, -0.02234 * r + 0.02234 * g + b]
    };
    let theme = Theme { palette: Palette::ColourBlind, unicode: true };
    let colour = |tone| seen(theme.style(tone).fg.unwrap());
    for (one, other) in [(Tone::Good, Tone::Bad), (Tone::Good, Tone::Warn), (Tone::Warn, Tone::Bad)] {
        let (a, b) = (colour(one), colour(other));
        let apart = (0..3).map(|channel| (a[channel] - b[channel]).powi(2)).sum::<f64>().sqrt();
        assert!(apart > 0.25, "{one:?} and {other:?}: {apart}");
    }
}

#[test]
fn the_mono_theme_has_modifiers_only_and_states_differ_by_glyph() {
    for unicode in [true, false] {
        let theme = Theme { palette: Palette::Mono, unicode };
        for tone in TONES {
            let style = theme.style(tone);
            assert_eq!((style.fg, style.bg), (None, None), "{tone:?}");
        }
        assert!(theme.style(Tone::Selected).add_modifier.contains(Modifier::REVERSED));
        let glyphs = [Tone::Good, Tone::Warn, Tone::Bad, Tone::Dim].map(|tone| theme.glyph(tone));
        let different: std::collections::BTreeSet<_> = glyphs.iter().collect();
        assert_eq!(different.len(), glyphs.len(), "{glyphs:?}");
    }
}

#[test]
fn charts_grow_upwards_and_leave_gaps() {
    let theme = Theme { palette: Palette::Mono, unicode: true };
    let chart = theme.chart(&[0.0, 1.0, f64::NAN, 8.0, 16.0], 6, 2, 16.0);
    assert_eq!(chart, ["     █", "  ▁ ██"]);
    assert_eq!(theme.chart(&[], 3, 1, 0.0), ["   "]);
}
