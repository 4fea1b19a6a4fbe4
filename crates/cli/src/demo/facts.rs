//! Sentences to search among, so that the right one is not found by luck.

/// Short facts, each about something else.
pub(super) const FACTS: [&str; 20] = [
    "Honey does not spoil for centuries while its jar stays sealed.",
    "The Danube crosses ten countries before it reaches the Black Sea.",
    "Bees dance to tell each other where flowers bloom.",
    "Concrete hardens by a chemical reaction with water, not by drying.",
    "The first postage stamp was sold in London in 1840.",
    "An octopus has three hearts and blue blood.",
    "Glaciers store most of the fresh water on Earth.",
    "The strings of a violin were once made of sheep gut.",
    "Mount Everest grows by a few millimetres every year.",
    "Copper pans heat evenly because the metal conducts warmth so well.",
    "The printing press made books affordable in fifteenth-century Europe.",
    "Lightning makes the air five times hotter than the surface of the Sun.",
    "Sourdough rises thanks to wild yeast in the flour.",
    "Camels keep fat, not water, in their humps.",
    "The Moon drifts away from us by four centimetres a year.",
    "Vaccination against smallpox began with a milkmaid's cowpox.",
    "Chess spread from India to Persia and then to Europe.",
    "Tea leaves oxidise before they become black tea.",
    "Swallows cross the Sahara twice a year on their migration.",
    "A leap year gives February an extra day.",
];

/// A search, and how to tell that the right passage came first.
#[derive(Debug)]
pub(super) struct Wanted {
    /// What is searched for: no word that carries meaning is in the passage.
    pub query: &'static str,
    /// Words that only the right passage has, in this order.
    pub phrase: &'static str,
    /// Where it comes from.
    pub source: &'static str,
}

/// Two of the passages were spoken, one was written.
pub(super) const SEARCHES: [Wanted; 3] = [
    Wanted { query: "patriotism, civic duty", phrase: "your country", source: "the inaugural address" },
    Wanted {
        query: "nimble animal hopping above sleepy hound",
        phrase: "brown fox jumps",
        source: "the clip about the fox",
    },
    Wanted { query: "marine animal anatomy", phrase: "octopus has three hearts", source: "the list of facts" },
];
