"""Operations in the form that the platform runs well."""
