//! Mutations of a control file, the same in every run.

/// Numbers that look like chance, from a seed (splitmix64).
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Chance(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn byte(&mut self) -> u8 {
        self.next() as u8
    }
}

pub struct Mutation {
    pub name: String,
    pub bytes: Vec<u8>,
}

pub struct Mutations<'b> {
    bytes: &'b [u8],
    chance: Chance,
}

impl<'b> Mutations<'b> {
    pub fn of(bytes: &'b [u8], seed: u64) -> Self {
        Mutations { bytes, chance: Chance::new(seed) }
    }

    /// Every length that is too short.
    pub fn truncations(&self) -> Vec<Mutation> {
        let cut = |len: usize| Mutation { name: format!("cut to {len} bytes"), bytes: self.bytes[..len].to_vec() };
        (0..self.bytes.len()).map(cut).collect()
    }

    /// Every single bit.
    pub fn flips(&self) -> Vec<Mutation> {
        let flip = |bit: usize| {
            let mut bytes = self.bytes.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            Mutation { name: format!("bit {} of byte {} flipped", bit % 8, bit / 8), bytes }
        };
        (0..self.bytes.len() * 8).map(flip).collect()
    }

    /// Every byte overwritten by zero, by 0xFF and by each of its neighbours, where that is a change.
    pub fn overwritten(&self) -> Vec<Mutation> {
        let mut mutations = Vec::new();
        for at in 0..self.bytes.len() {
            let neighbours = [at.wrapping_sub(1), at + 1].map(|at| self.bytes.get(at).copied().unwrap_or(0));
            for value in [0, 0xff, neighbours[0], neighbours[1]] {
                let mut bytes = self.bytes.to_vec();
                bytes[at] = value;
                if bytes != self.bytes {
                    mutations.push(Mutation { name: format!("byte {at} is {value:#04x}"), bytes });
                }
            }
        }
        mutations
    }

    /// `count` mutations by chance.
    pub fn random(&mut self, count: usize) -> Vec<Mutation> {
        let mut mutations = Vec::new();
        while mutations.len() < count {
            let bytes = mutated(self.bytes, &mut self.chance);
            if bytes != self.bytes {
                mutations.push(Mutation { name: format!("random mutation {}", mutations.len()), bytes });
            }
        }
        mutations
    }
}

/// The bytes after a few accidents; by chance the same.
pub fn mutated(bytes: &[u8], chance: &mut Chance) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=chance.below(4) {
        let at = chance.below(bytes.len().max(1)).min(bytes.len());
        let len = chance.below(64).min(bytes.len() - at);
        match chance.below(8) {
            0 if !bytes.is_empty() => bytes[at] = chance.byte(),
            1 => bytes.insert(at, chance.byte()),
            2 if !bytes.is_empty() => drop(bytes.remove(at)),
            // A block that was never written.
            3 => bytes[at..at + len].fill(0),
            4 => drop(bytes.drain(at..at + len)),
            5 => {
                let again = bytes[at..at + len].to_vec();
                bytes.splice(at..at, again);
            }
            6 => bytes[at..at + len].reverse(),
            // Another digit, letter or bracket: what a checksum that is made to fit lets through to the parser.
            _ if !bytes.is_empty() => bytes[at] = b"0123456789abcdef{}[]\",:-\\ntrue"[chance.below(30)],
            _ => {}
        }
    }
    bytes
}

/// The contents without their checksum, and one that fits.
pub fn refit(bytes: &[u8]) -> Vec<u8> {
    let mut line = bytes[..bytes.len().saturating_sub(10)].to_vec();
    line.retain(|&byte| byte != b'\n');
    line.push(b'\n');
    let checksum = format!("{:08x}\n", crc32fast::hash(&line));
    line.extend_from_slice(checksum.as_bytes());
    line
}
