# One image for all three parties: docker build -t threepc .
#   docker run --rm threepc run examples/digits/resnet18_digits.py examples/digits/resnet18_digits.pth --input examples/digits/images/digit_3.png
#   docker run --rm -p 7000:7000 -v "$PWD/deployment:/deployment:ro" threepc provider --deployment /deployment/deployment.yaml
# Keys and models are mounted, never built in.
FROM python:3.11-slim

RUN useradd --create-home threepc && mkdir /opt/threepc && chown threepc /opt/threepc
USER threepc
WORKDIR /opt/threepc

# The environment first, of a package still empty, so that a change of threepc's code does not install torch again
COPY --chown=threepc setup.cfg pyproject.toml ./
COPY --chown=threepc launch launch
COPY --chown=threepc threepc/__init__.py threepc/errors.py threepc/
COPY --chown=threepc threepc/mmlab/__init__.py threepc/mmlab/compat.py threepc/mmlab/
RUN PIP_NO_CACHE_DIR=1 launch/setup.sh

COPY --chown=threepc . .
ENV PATH=/opt/threepc/.venv/bin:$PATH
ENTRYPOINT ["threepc"]
CMD ["--help"]
