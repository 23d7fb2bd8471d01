//! Coordinate transformations (ISO 32000-2 8.3).

use super::object::Object;

/// `[a b c d e f]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Matrix(pub(crate) [f64; 6]);

impl Matrix {
    pub(crate) const IDENTITY: Self = Self([1.0, 0.0, 0.0, 1.0, 0.0, 0.0]);

    pub(crate) const fn translation(x: f64, y: f64) -> Self {
        Self([1.0, 0.0, 0.0, 1.0, x, y])
    }

    pub(crate) fn read(numbers: &[Object]) -> Option<Self> {
        let numbers: Vec<f64> = numbers.iter().map(Object::as_number).collect::<Option<_>>()?;
        numbers.try_into().ok().map(Self)
    }

    /// First this one, then another.
    pub(crate) fn then(self, other: Self) -> Self {
        let ([a, b, c, d, e, f], [p, q, r, s, t, u]) = (self.0, other.0);
        Self([
            a * p + b * r,
            a * q + b * s,
            c * p + d * r,
            c * q + d * s,
            e * p + f * r + t,
            e * q + f * s + u,
        ])
    }

    pub(crate) fn apply(self, x: f64, y: f64) -> (f64, f64) {
        let [a, b, c, d, e, f] = self.0;
        (a * x + c * y + e, b * x + d * y + f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transformations_are_applied_from_left_to_right() {
        let double = Matrix([2.0, 0.0, 0.0, 2.0, 0.0, 0.0]);
        let moved = Matrix::translation(10.0, 1.0);
        assert_eq!(double.then(moved).apply(1.0, 1.0), (12.0, 3.0));
        assert_eq!(moved.then(double).apply(1.0, 1.0), (22.0, 4.0));
    }
}
