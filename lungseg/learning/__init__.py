"""What approaches are built from: features, regressors, trees, networks. It knows no approach and no spec."""
