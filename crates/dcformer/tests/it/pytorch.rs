//! PyTorch's random numbers, from which the inputs of golden files are made again.

/// `torch.manual_seed(seed); torch.rand(count) * 2 - 1` on the CPU: MT19937 (Matsumoto and Nishimura, 1998), of each
/// output the low 24 bits.
pub(crate) fn uniform(seed: u32, count: usize) -> Vec<f32> {
    const SIZE: usize = 624;
    const SHIFT: usize = 397;
    let mut state = [0u32; SIZE];
    state[0] = seed;
    for index in 1..SIZE {
        let last = state[index - 1];
        state[index] = 1_812_433_253u32
            .wrapping_mul(last ^ (last >> 30))
            .wrapping_add(index as u32);
    }
    let mut values = Vec::with_capacity(count);
    while values.len() < count {
        for index in 0..SIZE {
            let mixed = (state[index] & 0x8000_0000) | (state[(index + 1) % SIZE] & 0x7fff_ffff);
            let odd = if mixed & 1 == 1 { 0x9908_b0df } else { 0 };
            state[index] = state[(index + SHIFT) % SIZE] ^ (mixed >> 1) ^ odd;
        }
        for mut word in state {
            word ^= word >> 11;
            word ^= (word << 7) & 0x9d2c_5680;
            word ^= (word << 15) & 0xefc6_0000;
            word ^= word >> 18;
            values.push((word & 0x00ff_ffff) as f32 / 16_777_216.0 * 2.0 - 1.0);
        }
    }
    values.truncate(count);
    values
}
