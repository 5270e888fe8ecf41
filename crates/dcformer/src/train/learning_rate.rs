//! The learning rate of each step: a pure function, so that resuming needs no state.

use super::config::{OptimizerConfig, Schedule};

/// Learning rate of step `step` (from 0) of `steps`.
pub(super) fn learning_rate(config: &OptimizerConfig, peak: f64, step: u64, steps: u64) -> f64 {
    if step < config.warmup_steps {
        return peak * (step + 1) as f64 / config.warmup_steps as f64;
    }
    match config.schedule {
        Schedule::Constant => peak,
        Schedule::Cosine => {
            let total = steps.saturating_sub(config.warmup_steps).max(1);
            let done = (step - config.warmup_steps) as f64 / total as f64;
            peak * 0.5 * (1.0 + (std::f64::consts::PI * done.min(1.0)).cos())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_stays_or_falls_as_configured() {
        let mut config = OptimizerConfig {
            warmup_steps: 10,
            ..OptimizerConfig::default()
        };
        assert_eq!(learning_rate(&config, 1.0, 0, 100), 0.1);
        assert_eq!(learning_rate(&config, 1.0, 9, 100), 1.0);
        assert_eq!(learning_rate(&config, 1.0, 99, 100), 1.0);
        config.schedule = Schedule::Cosine;
        assert_eq!(learning_rate(&config, 1.0, 10, 100), 1.0);
        assert!((learning_rate(&config, 1.0, 55, 100) - 0.5).abs() < 1e-12);
        assert!(learning_rate(&config, 1.0, 99, 100) < 1e-3);
    }
}
